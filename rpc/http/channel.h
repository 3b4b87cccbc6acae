// Bytes of one connection, plain or under TLS. Internal to this folder: only the files that include it pay for Asio.
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <functional>
#include <memory>
#include <utility>  // Asio 1.74 forgets it

namespace boost::asio::ssl {
class context;
}

namespace invar::http {

namespace asio = boost::asio;

using Socket = asio::generic::stream_protocol::socket;  // TCP's or a Unix socket

// One read and one write at a time may be under way; callbacks come from the io thread, never from within the call.
class Channel {
 public:
  using Done = std::function<void(const boost::system::error_code&, size_t)>;

  virtual ~Channel() = default;
  virtual void handshake(Done done) = 0;
  virtual void read_some(asio::mutable_buffer into, Done done) = 0;
  virtual void write_some(asio::const_buffer from, Done done) = 0;
  virtual Socket& socket() = 0;
};

// `tls` null: plain. It must outlive the channel.
std::unique_ptr<Channel> make_channel(Socket socket, asio::ssl::context* tls);

}  // namespace invar::http
