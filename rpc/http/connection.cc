#include "rpc/http/connection.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/beast/http/status.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "rpc/http/connection_exchange.h"
#include "rpc/http/error_body.h"
#include "rpc/http/request_id.h"

namespace invar::http {
namespace {

namespace beast = boost::beast;

constexpr size_t kReadAhead = 64 << 10;
constexpr size_t kReadSize = 16 << 10;
constexpr size_t kWriteSize = 256 << 10;
constexpr std::chrono::milliseconds kLinger{1000};

absl::string_view view(beast::string_view text) { return {text.data(), text.size()}; }

absl::string_view reason_of(int status) {
  if (status == 499) return "Client Closed Request";
  return view(beast::http::obsolete_reason(static_cast<beast::http::status>(status)));
}

// RFC 9110's date changes once a second and costs more than the rest of a head.
const std::string& date() {
  thread_local std::string text;
  thread_local int64_t of_second = 0;
  const absl::Time now = absl::Now();
  if (const int64_t second = absl::ToUnixSeconds(now); second != of_second) {
    of_second = second;
    text = absl::FormatTime("%a, %d %b %E4Y %H:%M:%S GMT", now, absl::UTCTimeZone());
  }
  return text;
}

// "GET http://host/path?query" is the form that proxies are sent.
void split_target(std::string_view target, Request& request) {
  if (const size_t scheme = target.find("://"); scheme != std::string_view::npos && scheme < target.find('/')) {
    const size_t path = target.find('/', scheme + 3);
    target = path == std::string_view::npos ? "/" : target.substr(path);
  }
  target = target.substr(0, target.find('#'));
  const size_t mark = target.find('?');
  request.path = std::string(target.substr(0, mark));
  if (mark != std::string_view::npos) request.query = std::string(target.substr(mark + 1));
}

std::string shown(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 200)) out += c >= ' ' && c < 127 && c != '"' ? c : '?';
  return out;
}

double milliseconds(std::chrono::steady_clock::duration d) { return std::chrono::duration<double, std::milli>(d).count(); }

}  // namespace

Connection::Connection(std::shared_ptr<ConnectionContext> context, IoThread& io, std::unique_ptr<Channel> channel,
                       std::string peer)
    : context_(std::move(context)),
      io_(io),
      channel_(std::move(channel)),
      peer_(std::move(peer)),
      buffer_(kReadAhead + kReadSize + static_cast<size_t>(context_->options.max_header_bytes)),
      timer_(io.context) {
  ++context_->connections;
}

Connection::~Connection() {
  if (exchange_ != nullptr) exchange_->finish(false);
  release_body();
  --context_->connections;
}

void Connection::start() {
  io_.connections.insert(this);
  set_deadline(read_deadline_, context_->options.header_timeout);
  channel_->handshake([self = shared_from_this()](const boost::system::error_code& error, size_t) {
    if (self->state_ == State::kClosed) return;
    if (error) return self->close();
    self->begin_request();
    self->read();
  });
}

void Connection::turn_away() {
  io_.connections.insert(this);
  set_deadline(read_deadline_, context_->options.header_timeout);
  channel_->handshake([self = shared_from_this()](const boost::system::error_code& error, size_t) {
    if (self->state_ == State::kClosed) return;
    if (error) return self->close();
    self->refuse(503,
                 absl::StrCat("the server has ", self->context_->options.max_connections, " connections open and takes no more"));
    self->read();
  });
}

void Connection::begin_request() {
  state_ = State::kReceiving;
  head_done_ = false;
  wants_more_ = false;
  parser_.emplace();
  parser_->eager(true);
  parser_->header_limit(static_cast<uint32_t>(context_->options.max_header_bytes));
  parser_->body_limit(static_cast<uint64_t>(context_->options.max_request_bytes));
  first_byte_at_ = {};
  if (serial_ > 0) set_deadline(read_deadline_, context_->options.idle_timeout);
}

void Connection::read() {
  if (reading_ || state_ == State::kClosed) return;
  if (state_ == State::kAnswering && buffer_.size() >= kReadAhead) return;
  reading_ = true;
  channel_->read_some(buffer_.prepare(kReadSize), [self = shared_from_this()](const boost::system::error_code& error,
                                                                              size_t bytes) { self->on_read(error, bytes); });
}

void Connection::on_read(const boost::system::error_code& error, size_t bytes) {
  reading_ = false;
  if (state_ == State::kClosed) return;
  if (error) return close();
  buffer_.commit(bytes);
  if (state_ == State::kReceiving) parse();
  if (state_ == State::kLingering) buffer_.consume(buffer_.size());
  read();
}

void Connection::parse() {
  namespace http = beast::http;
  // Beast (1.74) asserts that it has a whole last chunk when it comes to one for the second time. A body in chunks never has less
  // ahead of it, so nobody waits for what will not come.
  constexpr size_t kLastChunk = 5;  // 0 CRLF CRLF
  const auto enough = [&] { return buffer_.size() >= (wants_more_ && head_done_ && parser_->chunked() ? kLastChunk : 1); };
  while (state_ == State::kReceiving && enough()) {
    if (first_byte_at_ == Clock::time_point()) {
      first_byte_at_ = Clock::now();
      set_deadline(read_deadline_, context_->options.header_timeout);
    }
    boost::system::error_code error;
    const size_t used = parser_->put(buffer_.data(), error);
    buffer_.consume(used);
    wants_more_ = error == http::error::need_more;
    if (error == http::error::header_limit)
      return refuse(431, absl::StrCat("the head of the request is larger than ", context_->options.max_header_bytes, " bytes"));
    if (error == http::error::body_limit)
      return refuse(413, absl::StrCat("the body of the request is larger than ", context_->options.max_request_bytes,
                                      " bytes (--max-request-bytes)"));
    if (error && error != http::error::need_more) return refuse(400, absl::StrCat("this is not HTTP/1.1: ", error.message()));
    if (!head_done_ && parser_->is_header_done()) {
      head_done_ = true;
      if (!head_is_fine()) return;
    }
    if (parser_->is_done()) return dispatch();
    if (wants_more_ || used == 0) return;
  }
}

bool Connection::head_is_fine() {
  const auto length = parser_->content_length();
  announced_ = parser_->chunked() ? context_->options.max_request_bytes : length ? static_cast<int64_t>(*length) : 0;
  if (context_->body_bytes.fetch_add(announced_) + announced_ > context_->options.max_bodies_bytes) {
    refuse(503, absl::StrCat("bodies of more than ", context_->options.max_bodies_bytes, " bytes are being received; try again"));
    return false;
  }
  set_deadline(read_deadline_, context_->options.body_timeout);
  if (!parser_->is_done() && absl::EqualsIgnoreCase(view(parser_->get()[beast::http::field::expect]), "100-continue")) {
    pending_ += "HTTP/1.1 100 Continue\r\n\r\n";
    pump();
  }
  return true;
}

void Connection::dispatch() {
  auto& message = parser_->get();
  Request request;
  request.method = std::string(view(message.method_string()));
  split_target({message.target().data(), message.target().size()}, request);
  for (const auto& field : message)
    request.headers.emplace_back(absl::AsciiStrToLower(view(field.name_string())), std::string(view(field.value())));
  request.body = std::move(message.body());
  request.peer = peer_;
  request.request_id = request_id_of(request);
  keep_alive_ = message.keep_alive();
  http_1_0_ = message.version() < 11;
  head_only_ = request.method == "HEAD";
  parser_.reset();
  release_body();
  read_deadline_.reset();
  state_ = State::kAnswering;
  received_at_ = Clock::now();
  status_ = 0;
  written_ = 0;
  complete_ = false;
  exchange_ = std::make_shared<ExchangeCore>(context_, weak_from_this(), ++serial_, std::move(request));
  context_->handler(std::make_shared<ConnectionExchange>(exchange_));
}

void Connection::refuse(int status, const std::string& message) {
  parser_.reset();
  release_body();
  read_deadline_.reset();
  state_ = State::kAnswering;
  received_at_ = Clock::now();
  written_ = 0;
  complete_ = false;
  keep_alive_ = false;
  Request nothing;
  nothing.method = "-";
  nothing.path = "-";
  nothing.peer = peer_;
  nothing.request_id = new_request_id();
  exchange_ = std::make_shared<ExchangeCore>(context_, weak_from_this(), ++serial_, std::move(nothing));
  exchange_->note(absl::StrCat("why=\"", shown(message), "\""));
  respond(serial_, error_response(status, message));
}

void Connection::begin_answer(Response& head, bool streamed) {
  status_ = head.status;
  if (context_->draining) keep_alive_ = false;
  if (streamed && http_1_0_) keep_alive_ = false;  // no chunks there: the end of the connection is the end of the answer
  absl::StrAppend(&pending_, http_1_0_ ? "HTTP/1.0 " : "HTTP/1.1 ", head.status, " ", reason_of(head.status),
                  "\r\nDate: ", date(), "\r\nServer: invar\r\nX-Request-Id: ", exchange_->request().request_id, "\r\n");
  if (!head.content_type.empty()) absl::StrAppend(&pending_, "Content-Type: ", head.content_type, "\r\n");
  for (const auto& [name, value] : head.headers) absl::StrAppend(&pending_, name, ": ", value, "\r\n");
  if (!streamed) {
    if (head.status != 204) absl::StrAppend(&pending_, "Content-Length: ", head.body.size(), "\r\n");
  } else if (!http_1_0_) {
    absl::StrAppend(&pending_, "Transfer-Encoding: chunked\r\n");
  }
  if (!keep_alive_) {
    absl::StrAppend(&pending_, "Connection: close\r\n");
  } else if (http_1_0_) {
    absl::StrAppend(&pending_, "Connection: keep-alive\r\n");
  }
  pending_ += "\r\n";
}

void Connection::respond(uint64_t serial, Response response) {
  if (state_ != State::kAnswering || serial != serial_ || complete_ || source_ != nullptr) return;
  begin_answer(response, false);
  if (!head_only_) pending_ += response.body;
  complete_ = true;
  pump();
}

void Connection::stream(uint64_t serial, Response head, std::shared_ptr<BodySource> source) {
  if (state_ != State::kAnswering || serial != serial_ || complete_ || source_ != nullptr) return;
  begin_answer(head, true);
  source_ = std::move(source);
  pump();
}

void Connection::pump() {
  if (writing_ || state_ == State::kClosed) return;
  if (offset_ < out_.size()) return write();
  out_.clear();
  offset_ = 0;
  if (out_.capacity() > kWriteSize) out_.shrink_to_fit();
  if (source_ != nullptr) {
    std::string body;
    const bool more = source_->pull(body);
    if (!body.empty() && !head_only_) {
      if (http_1_0_) {
        pending_ += body;
      } else {
        absl::StrAppend(&pending_, absl::Hex(body.size()), "\r\n", body, "\r\n");
      }
    }
    if (!more) {
      if (!http_1_0_ && !head_only_) pending_ += "0\r\n\r\n";
      source_.reset();
      complete_ = true;
    }
  }
  out_.swap(pending_);
  if (!out_.empty()) return write();
  if (complete_) answered();
}

void Connection::write() {
  if (writing_ || state_ == State::kClosed) return;
  writing_ = true;
  set_deadline(write_deadline_, context_->options.write_timeout);
  channel_->write_some(
      asio::buffer(out_.data() + offset_, std::min(out_.size() - offset_, kWriteSize)),
      [self = shared_from_this()](const boost::system::error_code& error, size_t bytes) { self->on_written(error, bytes); });
}

void Connection::on_written(const boost::system::error_code& error, size_t bytes) {
  writing_ = false;
  write_deadline_.reset();
  if (state_ == State::kClosed) return;
  if (error) return close();
  offset_ += bytes;
  written_ += static_cast<int64_t>(bytes);
  pump();
}

void Connection::answered() {
  log(true);
  complete_ = false;
  const std::shared_ptr<ExchangeCore> exchange = std::move(exchange_);
  exchange_ = nullptr;
  if (!keep_alive_ || context_->draining) {
    linger();
  } else {
    begin_request();
    parse();
    read();
  }
  if (exchange != nullptr) exchange->finish(true);
}

// Closing a socket with unread bytes resets it, and the client may never see the answer: it must close first, or a moment pass.
void Connection::linger() {
  state_ = State::kLingering;
  boost::system::error_code ignored;
  channel_->socket().shutdown(Socket::shutdown_send, ignored);
  buffer_.consume(buffer_.size());
  set_deadline(read_deadline_, kLinger);
  read();
}

void Connection::drain() {
  const bool idle = state_ == State::kReceiving && first_byte_at_ == Clock::time_point();
  if (idle || state_ == State::kLingering || state_ == State::kHandshake) close();
}

void Connection::close() {
  if (state_ == State::kClosed) return;
  if (exchange_ != nullptr) log(false);
  state_ = State::kClosed;
  boost::system::error_code ignored;
  timer_.cancel();
  channel_->socket().close(ignored);
  source_.reset();
  release_body();
  const std::shared_ptr<ExchangeCore> exchange = std::move(exchange_);
  exchange_ = nullptr;
  io_.connections.erase(this);
  if (exchange != nullptr) exchange->finish(false);
}

void Connection::release_body() {
  context_->body_bytes -= announced_;
  announced_ = 0;
}

void Connection::log(bool complete) {
  if (!context_->options.access_log || exchange_ == nullptr) return;
  const Request& request = exchange_->request();
  const bool quiet =
      complete && status_ == 200 && (request.path == "/health" || request.path == "/ping" || request.path == "/metrics");
  spdlog::log(quiet ? spdlog::level::debug : spdlog::level::info,
              "http peer={} method={} path={} status={} ms={:.1f} bytes={} request_id={}{}{}", peer_, shown(request.method),
              shown(request.path), status_, milliseconds(Clock::now() - received_at_), written_, request.request_id,
              complete ? "" : " incomplete", exchange_->notes());
}

void Connection::set_deadline(std::optional<Clock::time_point>& deadline, std::chrono::milliseconds from_now) {
  deadline = Clock::now() + from_now;
  if (!timer_at_ || *deadline < *timer_at_) watch();
}

// One timer for both deadlines. A deadline that is put off does not touch it: it looks again when it fires.
void Connection::watch() {
  std::optional<Clock::time_point> next = read_deadline_;
  if (write_deadline_ && (!next || *write_deadline_ < *next)) next = write_deadline_;
  if (!next) return;
  timer_at_ = next;
  timer_.expires_at(*next);
  timer_.async_wait([self = weak_from_this()](const boost::system::error_code& error) {
    const auto connection = self.lock();
    if (error || connection == nullptr || connection->state_ == State::kClosed) return;
    connection->timer_at_.reset();
    connection->expire();
  });
}

void Connection::expire() {
  const Clock::time_point now = Clock::now();
  if (write_deadline_ && now >= *write_deadline_) {
    if (exchange_ != nullptr) exchange_->note("why=\"the client reads too slowly\"");
    return close();
  }
  if (read_deadline_ && now >= *read_deadline_) {
    if (state_ != State::kReceiving || first_byte_at_ == Clock::time_point()) return close();
    return refuse(408, head_done_ ? "the body of the request came too slowly" : "the head of the request came too slowly");
  }
  watch();
}

}  // namespace invar::http
