#include "launch/preflight_facts.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "rpc/tls/tls_probe.h"
#include "runtime/receipt/numerics_id.h"
#include "runtime/receipt/sha256.h"
#include "runtime/worker/build_id.h"
#include "runtime/worker/loaded_model.h"

namespace invar::launch {
namespace {

std::string error(const absl::Status& status) { return absl::StrCat("error: ", status.message()); }
bool failed(const std::string& text) { return absl::StartsWith(text, "error: "); }

double available_gib() {
  std::ifstream in("/proc/meminfo");
  std::string word;
  for (double kib = 0; in >> word;)
    if (word == "MemAvailable:" && in >> kib) return kib / (1 << 20);
  return 0;
}

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

int64_t limit_of(int resource, int64_t unit) {
  rlimit limit{};
  if (getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0) return 0;
  return limit.rlim_cur == RLIM_INFINITY ? -1 : static_cast<int64_t>(limit.rlim_cur) / unit;
}

// "580.65.06" of the kernel module.
std::string driver_version() {
  std::ifstream in("/proc/driver/nvidia/version");
  for (std::string word; in >> word;)
    if (!word.empty() && word[0] >= '0' && word[0] <= '9' && absl::StrContains(word, ".")) return word;
  return "";
}

std::string nccl_version() {
  void* library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return "";
  const auto get = reinterpret_cast<int (*)(int*)>(dlsym(library, "ncclGetVersion"));
  int version = 0;
  const bool known = get != nullptr && get(&version) == 0;
  return known ? absl::StrFormat("%d.%d.%d", version / 10000, version / 100 % 100, version % 100) : "of an unknown version";
}

std::string describe_device(const FactsOptions& options) {
  auto rank = rank_options(*options.ranks, EngineOptions(), options.local_size);
  if (!rank.ok()) return error(rank.status());
  auto device = Device::open(rank->device);
  return device.ok() ? (*device)->describe() : error(device.status());
}

std::string try_coordinator(const FactsOptions& options) {
  if (absl::Status s = rpc::reach(options.coordinator, options.wait); !s.ok())
    return absl::StrCat("error: --coordinator ", options.coordinator, ": ", s.message());
  auto tls = link_tls(*options.tls);
  if (!tls.ok()) return error(tls.status());
  const std::string why = rpc::explain_failure(options.coordinator, *tls, options.wait, "--worker-ssl-");
  return why.empty() ? "reached" : absl::StrCat("error: --coordinator ", options.coordinator, ": ", why);
}

// The first rank that has another value than most have, for each such rank one finding.
template <class Get>
void same(const std::vector<RankFacts>& facts, const char* what, const Get& get, std::vector<Finding>& out) {
  std::map<std::string, int> count;
  for (const RankFacts& f : facts) ++count[get(f)];
  if (count.size() < 2) return;
  const std::string usual =
      std::max_element(count.begin(), count.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->first;
  for (const RankFacts& f : facts)
    if (get(f) != usual)
      out.push_back(
          {true, absl::StrCat("rank ", f.rank, " on host ", f.host, ": ", what, " ", get(f), ", the others have ", usual)});
}

}  // namespace

void to_json(nlohmann::json& j, const RankFacts& f) {
  j = {{"rank", f.rank},
       {"local_rank", f.local_rank},
       {"pid", f.pid},
       {"host", f.host},
       {"cores", f.cores},
       {"memory_gib", f.memory_gib},
       {"isa", f.isa},
       {"device", f.device},
       {"driver", f.driver},
       {"nccl", f.nccl},
       {"numerics_id", f.numerics_id},
       {"build_id", f.build_id},
       {"model", f.model},
       {"memlock_kib", f.memlock_kib},
       {"nofile", f.nofile},
       {"interfaces", f.interfaces},
       {"coordinator", f.coordinator},
       {"clock_offset", f.clock_offset}};
}

void from_json(const nlohmann::json& j, RankFacts& f) {
  j.at("rank").get_to(f.rank), j.at("local_rank").get_to(f.local_rank), j.at("pid").get_to(f.pid), j.at("host").get_to(f.host);
  j.at("cores").get_to(f.cores), j.at("memory_gib").get_to(f.memory_gib), j.at("isa").get_to(f.isa);
  j.at("device").get_to(f.device), j.at("driver").get_to(f.driver), j.at("nccl").get_to(f.nccl);
  j.at("numerics_id").get_to(f.numerics_id), j.at("build_id").get_to(f.build_id), j.at("model").get_to(f.model);
  j.at("memlock_kib").get_to(f.memlock_kib), j.at("nofile").get_to(f.nofile), j.at("interfaces").get_to(f.interfaces);
  j.at("coordinator").get_to(f.coordinator), j.at("clock_offset").get_to(f.clock_offset);
}

std::vector<std::string> interfaces() {
  std::vector<std::string> out;
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return out;
  for (const ifaddrs* i = all; i != nullptr; i = i->ifa_next) {
    if (i->ifa_addr == nullptr || i->ifa_addr->sa_family != AF_INET || (i->ifa_flags & IFF_LOOPBACK) != 0 ||
        (i->ifa_flags & IFF_UP) == 0)
      continue;
    char text[INET_ADDRSTRLEN] = "";
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(i->ifa_addr)->sin_addr, text, sizeof text);
    out.push_back(absl::StrCat(i->ifa_name, " ", text));
  }
  freeifaddrs(all);
  std::sort(out.begin(), out.end());
  return out;
}

std::string model_fingerprint(const ModelFlags& flags, bool full) {
  auto options = model_options(flags);
  if (!options.ok()) return error(options.status());
  auto model = open_model(*options);  // checks config, tensor names, shapes and file sizes
  if (!model.ok()) return error(model.status());
  if (full) {
    auto digest = digest_of(*model, 2, {});
    return digest.ok() ? *digest : error(digest.status());
  }
  receipt::Sha256 hash;
  hash.text(model->documents.config_json).text(model->documents.generation_config_json).text(model->documents.tokenizer_json);
  std::vector<std::filesystem::path> files;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(model->path, ignored))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const auto& file : files) {
    std::ifstream in(file, std::ios::binary);
    uint64_t header = 0;
    in.read(reinterpret_cast<char*>(&header), sizeof header);
    std::string text(std::min<uint64_t>(header, 64 << 20), '\0');
    in.read(text.data(), static_cast<std::streamsize>(text.size()));
    hash.text(file.filename().string()).le64(std::filesystem::file_size(file, ignored)).text(text);
  }
  return receipt::hex(hash.finish()).substr(0, 16);
}

RankFacts gather_facts(RankFacts f, const FactsOptions& options) {
  f.pid = getpid();
  f.cores = usable_cores();
  f.memory_gib = available_gib();
  f.isa = std::string(name(detect_isa()));
  f.device = describe_device(options);
  f.driver = driver_version();
  f.nccl = absl::StartsWith(f.device, "cuda") ? nccl_version() : "";
  if (auto rank = rank_options(*options.ranks, EngineOptions(), options.local_size); rank.ok())
    f.numerics_id = numerics_id(rank->device.profile, rank->device.control_arm);
  f.build_id = std::string(build_id());
  f.model = model_fingerprint(options.ranks->model, options.full);
  f.memlock_kib = limit_of(RLIMIT_MEMLOCK, 1024);
  f.nofile = limit_of(RLIMIT_NOFILE, 1);
  f.interfaces = interfaces();
  if (!options.coordinator.empty()) f.coordinator = try_coordinator(options);
  return f;
}

std::vector<Finding> compare(const std::vector<RankFacts>& facts, const parallel::Layout& layout) {
  std::vector<Finding> out;
  const auto who = [](const RankFacts& f) { return absl::StrCat("rank ", f.rank, " on host ", f.host, ": "); };
  if (layout.world() != static_cast<int>(facts.size()))
    out.push_back({true, absl::StrCat("the layout ", parallel::to_string(layout), " wants ", layout.world(), " ranks, ",
                                      facts.size(), " were started")});
  for (const RankFacts& f : facts) {
    for (const std::string* text : {&f.device, &f.model, &f.coordinator})
      if (failed(*text)) out.push_back({true, absl::StrCat(who(f), text->substr(7))});
  }
  same(
      facts, "build", [](const RankFacts& f) { return f.build_id; }, out);
  same(
      facts, "numerics id", [](const RankFacts& f) { return f.numerics_id; }, out);
  std::vector<RankFacts> readable;
  std::copy_if(facts.begin(), facts.end(), std::back_inserter(readable), [](const RankFacts& f) { return !failed(f.model); });
  same(
      readable, "model files", [](const RankFacts& f) { return f.model; }, out);
  std::map<std::string, const RankFacts*> hosts;  // the first rank of each
  for (const RankFacts& f : facts) hosts.emplace(f.host, &f);
  std::map<std::string, std::string> owner;  // of an address
  for (const auto& [host, f] : hosts) {
    for (const std::string& interface : f->interfaces) {
      const auto [at, fresh] = owner.emplace(interface.substr(interface.find(' ') + 1), host);
      if (!fresh)
        out.push_back(
            {false,
             absl::StrCat("hosts ", at->second, " and ", host, " both have ", interface,
                          ": MPI may try to connect over it (--mca btl_tcp_if_include SUBNET --mca oob_tcp_if_include SUBNET)")});
    }
    if (f->nofile >= 0 && f->nofile < 1024)
      out.push_back({false, absl::StrCat(who(*f), "ulimit -n is ", f->nofile, ", less than 1024")});
    if (absl::StartsWith(f->device, "cuda") && f->memlock_kib >= 0 && f->memlock_kib < (1 << 20))
      out.push_back(
          {false, absl::StrCat(who(*f), "ulimit -l is ", f->memlock_kib, " KiB: RDMA and page-locked memory want unlimited")});
    if (std::abs(f->clock_offset) > 1)
      out.push_back(
          {false, absl::StrFormat("%sits clock is %+.1f s off that of rank 0: certificates and logs", who(*f), f->clock_offset)});
  }
  return out;
}

}  // namespace invar::launch
