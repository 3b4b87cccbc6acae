// What the coordinator itself can stream over HTTP: real sockets and the real engine, ranks whose model is a hash. Clients,
// engine and server share this machine's cores.
//   rpc_http_stream_bench [STREAMS [TOKENS_EACH]]
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "rpc/http/http_harness.h"

namespace invar::http {
namespace {

using Clock = std::chrono::steady_clock;

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

int run(int streams, int tokens) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  HttpArrangement given;
  given.http.access_log = false;
  given.rpc.engine.max_num_seqs = streams;
  given.rpc.fake.facts.pages_per_home = 1 << 17;
  given.rpc.fake.hang_at_step = 1;
  HttpService service(given);
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < streams; ++i) {
    clients.push_back(std::make_unique<HttpClient>(service.address()));
    const Json body{{"prompt", {i + 1, 7}}, {"max_tokens", tokens}, {"temperature", 0}, {"stream", true}, {"ignore_eos", true}};
    clients.back()->send(request_text("POST", "/v1/completions", body.dump()));
  }
  if (!soon([&] { return service.rpc.server->state()->open_streams() == streams; })) return 1;
  const Clock::time_point begin = Clock::now();
  const double cpu = cpu_seconds();
  service.rpc.fakes[0]->release();
  std::vector<pollfd> waiting;
  for (const auto& client : clients) waiting.push_back({client->fd(), POLLIN, 0});
  size_t open = clients.size();
  uint64_t bytes = 0, events = 0;
  std::vector<char> block(1 << 20);
  while (open > 0) {
    poll(waiting.data(), waiting.size(), 1000);
    for (pollfd& p : waiting) {
      if (p.fd < 0 || (p.revents & (POLLIN | POLLHUP)) == 0) continue;
      const ssize_t n = recv(p.fd, block.data(), block.size(), 0);
      if (n <= 0) return 1;
      const std::string_view text(block.data(), static_cast<size_t>(n));
      bytes += text.size();
      for (size_t at = text.find("data: "); at != std::string_view::npos; at = text.find("data: ", at + 6)) ++events;
      if (text.find("0\r\n\r\n") == std::string_view::npos || text.substr(text.size() - 5) != "0\r\n\r\n") continue;
      p.fd = -1;
      --open;
    }
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count(), all = static_cast<double>(streams) * tokens;
  std::printf("%d streams x %d tokens: %.0f tokens/s, %.2f tokens an event, %.0f bytes a token, %.1f us of CPU a token\n",
              streams, tokens, all / seconds, all / static_cast<double>(events), static_cast<double>(bytes) / all,
              (cpu_seconds() - cpu) / all * 1e6);
  return 0;
}

}  // namespace
}  // namespace invar::http

int main(int argc, char** argv) {
  if (argc > 1) return invar::http::run(std::atoi(argv[1]), argc > 2 ? std::atoi(argv[2]) : 200);
  for (const int streams : {1, 64, 1000})
    if (invar::http::run(streams, streams == 1 ? 5000 : 200) != 0) return 1;
  return 0;
}
