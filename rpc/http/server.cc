#include "rpc/http/server.h"

#include <netinet/in.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstring>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "rpc/http/connection.h"
#include "rpc/http/tls.h"
#include "rpc/wire/listen.h"

namespace invar::http {
namespace {

using asio::ip::tcp;
using Generic = asio::generic::stream_protocol;
using Acceptor = asio::basic_socket_acceptor<Generic>;
using Clock = std::chrono::steady_clock;

// Bounds what the kernel holds for a client that does not read: the source of a stream notices earlier and the memory of a
// thousand such clients stays small.
constexpr int kSendBuffer = 256 << 10;
constexpr std::chrono::milliseconds kNoDescriptors{100};

constexpr absl::string_view kUnix = "unix:";

tcp::endpoint tcp_endpoint(const Generic::endpoint& from) {
  tcp::endpoint to;
  to.resize(from.size());
  std::memcpy(to.data(), from.data(), from.size());
  return to;
}

std::string shown(const tcp::endpoint& endpoint) {
  const std::string address = endpoint.address().to_string();
  return endpoint.address().is_v6() ? absl::StrCat("[", address, "]:", endpoint.port())
                                    : absl::StrCat(address, ":", endpoint.port());
}

absl::Status check(const ServerOptions& o) {
  const auto at_least = [](const char* field, int64_t value, int64_t least) {
    if (value >= least) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(field, " ", value, " is less than ", least));
  };
  if (o.listen.empty()) return absl::InvalidArgumentError("HTTP listen address: none given");
  for (const std::string& address : o.listen) {
    if (absl::Status s = rpc::check_address(address, "HTTP listen address"); !s.ok()) return s;
  }
  if (absl::Status s = at_least("max_request_bytes", o.max_request_bytes, 1024); !s.ok()) return s;
  if (absl::Status s = at_least("max_header_bytes", o.max_header_bytes, 1024); !s.ok()) return s;
  if (absl::Status s = at_least("max_bodies_bytes", o.max_bodies_bytes, o.max_request_bytes); !s.ok()) return s;
  if (absl::Status s = at_least("max_connections", o.max_connections, 1); !s.ok()) return s;
  return at_least("io_threads", o.io_threads, 1);
}

}  // namespace

class Server::Impl {
 public:
  Impl(const ServerOptions& options, Handler handler) : context_(std::make_shared<ConnectionContext>()) {
    context_->options = options;
    context_->handler = std::move(handler);
  }
  ~Impl() { shutdown(std::chrono::milliseconds(0)); }

  absl::Status open() {
    const ServerOptions& options = context_->options;
    if (absl::Status s = check(options); !s.ok()) return s;
    auto tls = make_tls(options.tls);
    if (!tls.ok()) return tls.status();
    tls_ = *std::move(tls);
    for (int i = 0; i < options.io_threads; ++i) threads_.push_back(std::make_unique<IoThread>());
    for (const std::string& address : options.listen)
      if (absl::Status s = listen(address); !s.ok()) return s;
    for (size_t i = 0; i < acceptors_.size(); ++i) asio::post(threads_[0]->context, [this, i] { accept(i); });
    spdlog::info("listening on {} ({})", absl::StrJoin(addresses_, ", "), tls_ ? "HTTPS" : "HTTP");
    return absl::OkStatus();
  }

  void shutdown(std::chrono::milliseconds wait) {
    if (std::exchange(shut_, true) || threads_.empty()) return;
    const Clock::time_point until = Clock::now() + wait;
    context_->draining = true;
    // Before the acceptors close: later the path may be another server's.
    for (const std::string& address : addresses_)
      if (absl::StartsWith(address, kUnix)) unlink(address.c_str() + kUnix.size());
    asio::post(threads_[0]->context, [this] {
      boost::system::error_code ignored;
      for (Acceptor& acceptor : acceptors_) acceptor.close(ignored);
    });
    on_connections([](Connection& c) { c.drain(); });
    while (context_->connections > 0 && Clock::now() < until) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    on_connections([](Connection& c) { c.close(); });
    const Clock::time_point closed = Clock::now() + std::chrono::milliseconds(500);
    while (context_->connections > 0 && Clock::now() < closed) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    {
      const std::unique_lock gate(context_->gate);
      context_->open = false;
    }
    for (auto& thread : threads_) thread->stop();
    acceptors_.clear();
    threads_.clear();
  }

  std::vector<std::string> addresses_;
  const std::shared_ptr<ConnectionContext> context_;

 private:
  absl::Status listen(const std::string& address) {
    const auto unbound = [&](const boost::system::error_code& error) {
      return absl::UnavailableError(absl::StrCat("HTTP listen address ", address, ": cannot be bound: ", error.message()));
    };
    boost::system::error_code error;
    Generic::endpoint endpoint;
    if (absl::StartsWith(address, kUnix)) {
      if (absl::Status s = rpc::make_way(address); !s.ok()) return s;
      endpoint = asio::local::stream_protocol::endpoint(address.substr(kUnix.size()));
    } else {
      const size_t colon = address.rfind(':');
      std::string host = address.substr(0, colon);
      if (host.front() == '[') host = host.substr(1, host.size() - 2);
      const auto found =
          tcp::resolver(threads_[0]->context).resolve(host, address.substr(colon + 1), tcp::resolver::passive, error);
      if (error || found.empty()) return unbound(error);
      endpoint = found.begin()->endpoint();
    }
    Acceptor acceptor(threads_[0]->context);
    acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(4096, error);
    if (error) return unbound(error);
    addresses_.push_back(absl::StartsWith(address, kUnix) ? address
                                                          : absl::StrCat(address.substr(0, address.rfind(':') + 1),
                                                                         tcp_endpoint(acceptor.local_endpoint()).port()));
    acceptors_.push_back(std::move(acceptor));
    return absl::OkStatus();
  }

  void accept(size_t listener) {
    IoThread& io = *threads_[next_++ % threads_.size()];
    acceptors_[listener].async_accept(io.context, [this, listener, &io](const boost::system::error_code& error, Socket socket) {
      if (context_->draining || error == asio::error::operation_aborted) return;
      if (error) {  // above all: no descriptors are left
        spdlog::warn("http: a connection cannot be taken: {}", error.message());
        auto retry = std::make_shared<asio::steady_timer>(threads_[0]->context, kNoDescriptors);
        retry->async_wait([this, listener, retry](const boost::system::error_code& cut) {
          if (!cut && !context_->draining) accept(listener);
        });
        return;
      }
      begin(io, std::move(socket), addresses_[listener]);
      accept(listener);
    });
  }

  void begin(IoThread& io, Socket socket, const std::string& address) {
    boost::system::error_code error;
    const Generic::endpoint peer = socket.remote_endpoint(error);
    if (error) return;  // gone already
    const bool local = peer.protocol().family() == AF_UNIX;
    if (!local) socket.set_option(tcp::no_delay(true), error);
    socket.set_option(asio::socket_base::send_buffer_size(kSendBuffer), error);
    socket.set_option(asio::socket_base::keep_alive(true), error);
    const bool full = context_->connections >= context_->options.max_connections;
    auto connection = std::make_shared<Connection>(context_, io, make_channel(std::move(socket), tls_.get()),
                                                   local ? address : shown(tcp_endpoint(peer)));
    asio::post(io.context, [this, connection, full] {
      if (context_->draining) return;
      full ? connection->turn_away() : connection->start();
    });
  }

  // Runs `work` on every open connection, each on its thread.
  template <class Work>
  void on_connections(Work work) {
    for (auto& thread : threads_) {
      asio::post(thread->context, [thread = thread.get(), work] {
        std::vector<std::shared_ptr<Connection>> open;
        for (Connection* c : thread->connections) open.push_back(c->shared_from_this());
        for (const auto& c : open) work(*c);
      });
    }
  }

  std::unique_ptr<asio::ssl::context> tls_;
  std::vector<std::unique_ptr<IoThread>> threads_;
  std::vector<Acceptor> acceptors_;
  size_t next_ = 0;
  bool shut_ = false;
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

absl::StatusOr<std::unique_ptr<Server>> Server::start(const ServerOptions& options, Handler handler) {
  auto impl = std::make_unique<Impl>(options, std::move(handler));
  if (absl::Status status = impl->open(); !status.ok()) return status;
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

const std::vector<std::string>& Server::addresses() const { return impl_->addresses_; }
int Server::connections() const { return impl_->context_->connections; }
void Server::shutdown(std::chrono::milliseconds wait) { impl_->shutdown(wait); }

}  // namespace invar::http
