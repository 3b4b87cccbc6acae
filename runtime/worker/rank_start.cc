#include "runtime/worker/rank_start.h"

#include <chrono>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "parallel/transport/group.h"
#include "runtime/model/tags.h"

namespace invar {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RankReport, rank, host, pid, device, numerics_id, model_digest, build_id, weight_bytes,
                                   kv_bytes)

namespace {

using Clock = std::chrono::steady_clock;
// Hashing or loading a model of hundreds of gigabytes from a network disk is slow, not broken.
constexpr std::chrono::minutes kLoadDeadline{30};

std::string wait_for(parallel::Transport& transport, int peer, const char* what) {
  std::vector<std::byte> bytes;
  const auto begin = Clock::now();
  while (!transport.try_receive_message(peer, kStartTag, bytes, std::chrono::milliseconds(500)))
    if (Clock::now() - begin > kLoadDeadline)
      throw parallel::PeerFailure({.rank = transport.rank(),
                                   .host = transport.host(),
                                   .phase = what,
                                   .peer = peer,
                                   .waited_seconds = std::chrono::duration<double>(Clock::now() - begin).count()});
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void send(parallel::Transport& transport, int peer, const std::string& text) {
  transport.send_message(peer, kStartTag, std::as_bytes(std::span(text.data(), text.size())));
}

}  // namespace

absl::StatusOr<std::string> share_digest(parallel::Transport& transport,
                                         const std::function<absl::StatusOr<std::string>()>& compute) {
  // Who sits where: host names of all ranks.
  constexpr size_t kName = 256;
  std::vector<int> world(transport.size());
  for (int r = 0; r < transport.size(); ++r) world[r] = r;
  parallel::Group group(transport, world, kStartTag);
  std::vector<char> mine(kName), all(kName * world.size());
  transport.host().copy(mine.data(), kName - 1);
  group.all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)), "host names");
  std::vector<int> here;
  for (const int r : world)
    if (transport.host() == &all[r * kName]) here.push_back(r);
  if (here.front() != transport.rank()) {
    const std::string word = wait_for(transport, here.front(), "waiting for the model digest of this host");
    if (word.rfind("ok ", 0) == 0) return word.substr(3);
    return absl::InvalidArgumentError(word);
  }
  absl::StatusOr<std::string> digest = compute();
  for (size_t i = 1; i < here.size(); ++i)
    send(transport, here[i], digest.ok() ? absl::StrCat("ok ", *digest) : std::string(digest.status().message()));
  return digest;
}

std::vector<RankReport> gather_reports(parallel::Transport& transport, const std::vector<int>& members, const RankReport& mine) {
  if (members.front() != transport.rank()) {
    send(transport, members.front(), nlohmann::json(mine).dump());
    return {};
  }
  std::vector<RankReport> all{mine};
  for (size_t i = 1; i < members.size(); ++i)
    all.push_back(nlohmann::json::parse(wait_for(transport, members[i], "waiting for a rank to load")).get<RankReport>());
  return all;
}

}  // namespace invar
