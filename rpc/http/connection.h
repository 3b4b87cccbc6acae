// One client connection: requests in, one after the other, and their answers out. Internal to this folder.
#pragma once

#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>

#include "rpc/http/channel.h"
#include "rpc/http/exchange.h"
#include "rpc/http/io_thread.h"
#include "rpc/http/server.h"

namespace invar::http {

// What the connections of a server share.
struct ConnectionContext {
  ServerOptions options;
  Handler handler;
  std::atomic<int64_t> body_bytes{0};  // announced by requests being received
  std::atomic<int> connections{0};
  std::atomic<bool> draining{false};
  std::shared_mutex gate;  // held by whoever reaches for an io thread from outside
  bool open = true;        // false: the io threads may be gone
};

class ExchangeCore;

// Always reading: data is the next request or, behind one that is being answered, a sign of life; its end means that nobody waits
// for the answer. At most kReadAhead bytes are taken in advance of a request's turn. What is written is bounded by the source of
// the stream, or is one whole answer.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<ConnectionContext> context, IoThread& io, std::unique_ptr<Channel> channel, std::string peer);
  ~Connection();

  // All on the io thread.
  void start();
  void turn_away();  // 503 and closed
  void pump();
  void respond(uint64_t serial, Response response);
  void stream(uint64_t serial, Response head, std::shared_ptr<BodySource> source);
  void drain();  // closes it now if idle, otherwise after the answer
  void close();

  IoThread& io() { return io_; }

 private:
  using Clock = std::chrono::steady_clock;
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  enum class State : uint8_t { kHandshake, kReceiving, kAnswering, kLingering, kClosed };

  void read();
  void on_read(const boost::system::error_code& error, size_t bytes);
  void parse();
  bool head_is_fine();
  void dispatch();
  void refuse(int status, const std::string& message);  // an answer of the connection itself; then it is closed
  void begin_answer(Response& head, bool streamed);
  void write();
  void on_written(const boost::system::error_code& error, size_t bytes);
  void answered();
  void begin_request();
  void linger();
  void log(bool complete);
  void release_body();
  void set_deadline(std::optional<Clock::time_point>& deadline, std::chrono::milliseconds from_now);
  void watch();
  void expire();

  const std::shared_ptr<ConnectionContext> context_;
  IoThread& io_;
  const std::unique_ptr<Channel> channel_;
  const std::string peer_;
  State state_ = State::kHandshake;

  // In.
  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  bool reading_ = false;
  bool head_done_ = false;
  bool wants_more_ = false;  // the parser does: what is in the buffer was not enough
  int64_t announced_ = 0;    // of this request in context_->body_bytes

  // The request being answered.
  uint64_t serial_ = 0;
  std::shared_ptr<ExchangeCore> exchange_;
  Clock::time_point received_at_, first_byte_at_;
  bool keep_alive_ = true, http_1_0_ = false, head_only_ = false;
  int status_ = 0;
  int64_t written_ = 0;

  // Out.
  std::string pending_;  // to be written next; out_ may not grow while it is being written
  std::string out_;
  size_t offset_ = 0;
  bool writing_ = false;
  std::shared_ptr<BodySource> source_;
  bool complete_ = false;  // all of the answer is in out_

  boost::asio::steady_timer timer_;
  std::optional<Clock::time_point> timer_at_, read_deadline_, write_deadline_;
};

}  // namespace invar::http
