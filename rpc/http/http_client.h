// For tests: a client that shows and sends bytes as they are, plain or over TLS, blocking, with a bound on every wait.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "rpc/http/fields.h"

namespace invar::http {

struct Reply {
  int status = 0;                              // 0 = the connection ended first
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  Json json() const { return Json::parse(body, nullptr, false); }
};

class HttpClient {
 public:
  explicit HttpClient(const std::string& address, SSL_CTX* tls = nullptr, int receive_buffer = 0) {
    const size_t colon = address.rfind(':');
    sockaddr_in tcp{};
    sockaddr_un local{};
    const bool on_tcp = address.substr(0, 5) != "unix:";
    if (on_tcp) {
      tcp.sin_family = AF_INET;
      tcp.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(colon + 1))));
      inet_pton(AF_INET, address.substr(0, colon).c_str(), &tcp.sin_addr);
    } else {
      local.sun_family = AF_UNIX;
      address.copy(local.sun_path, sizeof local.sun_path - 1, 5);
    }
    fd_ = socket(on_tcp ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (receive_buffer > 0) setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    connected_ = connect(fd_, on_tcp ? reinterpret_cast<sockaddr*>(&tcp) : reinterpret_cast<sockaddr*>(&local),
                         on_tcp ? sizeof tcp : sizeof local) == 0;
    if (tls != nullptr && connected_) {
      ssl_ = SSL_new(tls);
      SSL_set_fd(ssl_, fd_);
      connected_ = SSL_connect(ssl_) == 1;
    }
  }
  ~HttpClient() { close(); }
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  void close() {
    if (ssl_ != nullptr) SSL_free(std::exchange(ssl_, nullptr));
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  bool connected() const { return connected_; }
  int fd() const { return fd_; }

  void send(const std::string& bytes) {
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t n = ssl_ != nullptr ? SSL_write(ssl_, bytes.data() + done, static_cast<int>(bytes.size() - done))
                                        : ::send(fd_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
      if (n <= 0) return;
      done += static_cast<size_t>(n);
    }
  }
  // More bytes into the buffer; false: the end, or nothing for so long.
  bool fill(int wait_ms = 20000) {
    if (ssl_ == nullptr || SSL_pending(ssl_) == 0) {
      pollfd p{fd_, POLLIN, 0};
      if (poll(&p, 1, wait_ms) <= 0) return false;
    }
    char bytes[65536];
    const ssize_t n = ssl_ != nullptr ? SSL_read(ssl_, bytes, sizeof bytes) : recv(fd_, bytes, sizeof bytes, 0);
    if (n <= 0) return false;
    buffer_.append(bytes, static_cast<size_t>(n));
    return true;
  }
  // The head of the next answer.
  Reply head(int wait_ms = 20000) {
    size_t end = 0;
    while ((end = buffer_.find("\r\n\r\n")) == std::string::npos)
      if (!fill(wait_ms)) return {};
    Reply reply;
    bool first = true;
    for (const absl::string_view line : absl::StrSplit(absl::string_view(buffer_).substr(0, end), "\r\n")) {
      if (std::exchange(first, false)) {
        reply.status = std::atoi(std::string(line.substr(9, 3)).c_str());
        continue;
      }
      const size_t colon = line.find(": ");
      reply.headers[absl::AsciiStrToLower(line.substr(0, colon))] = std::string(line.substr(colon + 2));
    }
    buffer_.erase(0, end + 4);
    if (reply.status == 100) return head(wait_ms);
    return reply;
  }
  // A whole answer, however its body is delimited.
  Reply read(int wait_ms = 20000, bool no_body = false) {
    Reply reply = head(wait_ms);
    if (reply.status == 0 || no_body || reply.status == 204) return reply;
    if (const auto length = reply.headers.find("content-length"); length != reply.headers.end()) {
      const size_t size = std::stoul(length->second);
      while (buffer_.size() < size)
        if (!fill(wait_ms)) return {};
      reply.body = buffer_.substr(0, size);
      buffer_.erase(0, size);
    } else if (reply.headers.contains("transfer-encoding")) {
      for (std::string piece; chunk(piece, wait_ms);) reply.body += piece;
    } else {
      while (fill(wait_ms)) {
      }
      reply.body.swap(buffer_);
    }
    return reply;
  }
  // One chunk of a chunked body; false: it was the last, or the connection ended.
  bool chunk(std::string& out, int wait_ms = 20000) {
    size_t end = 0;
    while ((end = buffer_.find("\r\n")) == std::string::npos)
      if (!fill(wait_ms)) return false;
    const size_t size = std::stoul(buffer_.substr(0, end), nullptr, 16);
    while (buffer_.size() < end + 2 + size + 2)
      if (!fill(wait_ms)) return false;
    out = buffer_.substr(end + 2, size);
    buffer_.erase(0, end + 2 + size + 2);
    last_chunk_seen = size == 0;
    return size > 0;
  }
  // True when the server closes the connection within the time.
  bool closed(int wait_ms = 20000) {
    while (fill(wait_ms)) {
    }
    pollfd p{fd_, POLLIN, 0};
    return poll(&p, 1, 0) > 0;
  }

  bool last_chunk_seen = false;

 private:
  int fd_ = -1;
  SSL* ssl_ = nullptr;
  bool connected_ = false;
  std::string buffer_;
};

inline std::string request_text(const std::string& method, const std::string& path, const std::string& body = "",
                                const std::string& headers = "") {
  return absl::StrCat(method, " ", path, " HTTP/1.1\r\nHost: test\r\n", headers,
                      body.empty() ? "" : absl::StrCat("Content-Type: application/json\r\nContent-Length: ", body.size(), "\r\n"),
                      "\r\n", body);
}

// The data lines of a stream of events.
inline std::vector<std::string> events_of(const std::string& body) {
  std::vector<std::string> out;
  for (const absl::string_view event : absl::StrSplit(body, "\n\n", absl::SkipEmpty())) {
    EXPECT_EQ(event.substr(0, 6), "data: ");
    out.emplace_back(event.substr(6));
  }
  return out;
}

}  // namespace invar::http
