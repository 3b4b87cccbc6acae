// libFuzzer target: the bytes of one connection, over a real socket. The first byte says how they are cut into writes and whether
// the client reads in between; then it ends its side, upon which the server must end the connection. Answers must be HTTP, and
// nothing may be held for a client that has gone.
//   rpc_http_connection_fuzz CORPUS_FOLDER
// writes samples into CORPUS_FOLDER if it is empty, so that no corpus has to be kept.
#include <fcntl.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "rpc/http/server.h"
#include "tests/support/fuzz_corpus.h"

namespace {

using namespace invar::http;
using namespace std::chrono_literals;

constexpr const char* kSamples[] = {
    "AGET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    "BPOST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: x/y\r\nContent-Length: 7\r\n\r\n{\"a\":1}GET /stream HTTP/1.1\r\n\r\n",
    "CPOST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nTrailer: z\r\n\r\n",
    "CPOST /echo HTTP/1.1\r\nHost: 1x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: z\r\n\r\n",  // 32 bytes end with 0 CRLF
    "DGET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\nHEAD /stream HTTP/1.1\r\nConnection: close\r\n\r\n",
    "EPOST /later HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\nX-Request-Id: abc\r\n\r\nxyz",
    "FGET http://host:80/drop?x=1 HTTP/1.1\r\nHost: host\r\n\r\nOPTIONS * HTTP/1.1\r\n\r\n",
    "GPOST /echo HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "HPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"};

class Pieces final : public BodySource {
 public:
  bool pull(std::string& out) override {
    out += "data: piece\n\n";
    return --left_ > 0;
  }

 private:
  int left_ = 3;
};

void answer(const std::shared_ptr<Exchange>& exchange) {
  const Request& request = exchange->request();
  if (request.path == "/drop") return;  // must become a 500 by itself
  if (request.path == "/stream") return exchange->stream({200, "text/event-stream", {}, ""}, std::make_shared<Pieces>());
  if (request.path == "/later") {
    std::thread([exchange] { exchange->respond({200, "text/plain", {}, "later"}); }).detach();
    return;
  }
  exchange->respond({request.path == "/echo" ? 200 : 404, "text/plain", {}, request.body});
}

const std::string& path() {
  static const std::string path = "/tmp/invar_connection_fuzz_" + std::to_string(getpid());
  return path;
}

const std::unique_ptr<Server>& server() {
  static const auto* server = [] {
    spdlog::set_level(spdlog::level::off);
    ServerOptions options;
    options.listen = {"unix:" + path()};
    options.max_request_bytes = 2048;
    options.max_header_bytes = 1024;
    options.max_bodies_bytes = 4096;
    auto started = Server::start(options, answer);
    if (!started.ok()) {
      std::fprintf(stderr, "%s\n", started.status().ToString().c_str());
      std::exit(1);
    }
    std::atexit([] { unlink(path().c_str()); });
    return new std::unique_ptr<Server>(*std::move(started));
  }();
  return *server;
}

// False: the server has closed the connection.
bool read_some(int fd, std::string& all, int wait_ms) {
  pollfd p{fd, POLLIN, 0};
  const int ready = poll(&p, 1, wait_ms);
  if (ready == 0 && wait_ms > 0) std::abort();  // it must close, and soon
  if (ready <= 0) return true;
  char bytes[4096];
  const ssize_t n = recv(fd, bytes, sizeof bytes, 0);
  if (n > 0) all.append(bytes, static_cast<size_t>(n));
  return n > 0;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  invar::fill_empty_corpus(*argc, *argv, {std::begin(kSamples), std::end(kSamples)});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  server();
  const size_t piece = data[0] % 4 == 0 ? size : size_t{1} << (data[0] % 8 + 2);
  const bool reads_between = (data[0] & 0x10) != 0;
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  path().copy(to.sun_path, sizeof to.sun_path - 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) std::abort();
  std::string answers;
  bool open = true;
  for (size_t at = 1; at < size && open; at += piece) {
    if (send(fd, data + at, std::min(piece, size - at), MSG_NOSIGNAL) < 0) break;
    if (reads_between) open = read_some(fd, answers, 0);
  }
  shutdown(fd, SHUT_WR);
  while (open) open = read_some(fd, answers, 10'000);
  close(fd);
  if (!answers.empty() && answers.rfind("HTTP/1.", 0) != 0) std::abort();
  for (int waited = 0; server()->connections() > 0; ++waited) {
    if (waited > 100'000) std::abort();
    std::this_thread::sleep_for(50us);
  }
  return 0;
}
