#include "support/arrangement.h"

#include <algorithm>
#include <condition_variable>
#include <iostream>
#include <mutex>
#include <random>
#include <stdexcept>

#include "absl/strings/str_cat.h"

namespace invar::tests {
namespace {

v1::GenerateRequest random_company(std::mt19937_64& random, int64_t vocab, int index) {
  v1::GenerateRequest r;
  r.set_request_id(absl::StrCat("company-", index));
  const int length = 1 + static_cast<int>(random() % 90);
  for (int i = 0; i < length; ++i) r.mutable_prompt_token_ids()->add_ids(static_cast<int32_t>(random() % vocab));
  auto* p = r.mutable_sampling_params();
  p->set_max_tokens(1 + random() % 24);
  p->set_temperature(random() % 2 ? 0.0f : 1.0f);
  p->set_seed(random());
  p->set_ignore_eos(true);
  return r;
}

// Waits for a set of requests; collects the answers of those whose id is wanted.
class Collector {
 public:
  void submit(Engine& engine, const v1::GenerateRequest& request, bool wanted) {
    {
      const std::lock_guard lock(mutex_);
      ++open_;
    }
    const std::string name = request.request_id();
    auto id = engine.submit(request, [this, name, wanted](const absl::Status& status, const v1::GenerateResponse* response) {
      const std::lock_guard lock(mutex_);
      if (status.ok() && wanted) add(name, *response);
      if (!status.ok() && wanted) error_ = absl::StrCat(name, ": ", status.message());
      if (!status.ok() || response->finished()) {
        --open_;
        changed_.notify_all();
      }
    });
    if (!id.ok()) throw std::runtime_error(absl::StrCat(name, ": ", id.status().message()));
  }
  void wait() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::minutes(5), [&] { return open_ == 0; }))
      throw std::runtime_error(absl::StrCat(open_, " requests have no answer after five minutes"));
    if (!error_.empty()) throw std::runtime_error(error_);
  }
  Answers take() { return std::move(answers_); }

 private:
  void add(const std::string& name, const v1::GenerateResponse& response) {
    for (const v1::ChoiceDelta& d : response.choices()) {
      Answer& a = answers_[absl::StrCat(name, "/", d.index())];
      a.text += d.text();
      a.tokens.insert(a.tokens.end(), d.token_ids().begin(), d.token_ids().end());
      a.draws.insert(a.draws.end(), d.draws().begin(), d.draws().end());
      a.logits_hashes.insert(a.logits_hashes.end(), d.logits_hashes().begin(), d.logits_hashes().end());
      for (const auto& l : d.logprobs()) {
        a.logprob_bits.push_back(l.chosen().logprob_bits());
        for (const auto& t : l.top()) a.logprob_bits.push_back(t.logprob_bits());
      }
      if (d.finish_reason()) a.finish_reason = d.finish_reason();
      if (!d.response_digest().empty()) a.digest = d.response_digest();
    }
    Answer& first = answers_[absl::StrCat(name, "/0")];
    for (const auto& l : response.prompt_logprobs()) first.logprob_bits.push_back(l.chosen().logprob_bits());
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int open_ = 0;
  std::string error_;
  Answers answers_;
};

template <class T>
T value_or_throw(absl::StatusOr<T> v, const char* what) {
  if (!v.ok()) throw std::runtime_error(absl::StrCat(what, ": ", v.status().message()));
  return *std::move(v);
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Arrangement& a) { return out << a.name; }
std::ostream& operator<<(std::ostream& out, const Answer& a) {
  out << "{digest " << a.digest.substr(0, 16) << ", tokens";
  for (const int32_t t : a.tokens) out << ' ' << t;
  return out << ", text '" << a.text << "', " << a.logprob_bits.size() << " logprobs}";
}

std::filesystem::path shared_material() { return std::filesystem::path(INVAR_SOURCE_DIR) / ".." / "shared"; }
bool has_shared_material() { return std::filesystem::exists(shared_material() / "models" / "stories260K" / "hf"); }

const Model& Model::get(const std::string& name) {
  static std::mutex mutex;
  static std::map<std::string, std::unique_ptr<Model>> models;
  const std::lock_guard lock(mutex);
  auto& slot = models[name];
  if (slot) return *slot;
  ModelOptions options;
  options.path = std::filesystem::path(name).is_absolute()
                     ? std::filesystem::path(name)
                     : std::filesystem::path(INVAR_SOURCE_DIR) / "configs" / "models" / name;
  auto model = std::make_unique<Model>();
  model->loaded_ = std::make_unique<LoadedModel>(value_or_throw(open_model(options), "open_model"));
  model->digest_ = value_or_throw(digest_of(*model->loaded_, 1, {}), "digest_of");
  model->tokenizer_ = value_or_throw(Tokenizer::load(options.path), "Tokenizer::load");
  slot = std::move(model);
  return *slot;
}

std::unique_ptr<Model> Model::dummy(const std::string& config_json) {
  auto model = std::make_unique<Model>();
  model->loaded_ = std::make_unique<LoadedModel>();
  model->loaded_->config = value_or_throw(parse_model_config(config_json, ""), "parse_model_config");
  model->loaded_->documents.config_json = config_json;
  model->loaded_->weights = make_dummy_weights(model->loaded_->config, 3);
  model->digest_ = value_or_throw(digest_of(*model->loaded_, 1, {}), "digest_of");
  return model;
}

Backend& backend() {
  static Backend value = Backend::kCpu;
  return value;
}

Exchange& exchange() {
  static Exchange value = Exchange::kAuto;
  return value;
}

namespace {

// Takes `flag`VALUE out of the arguments; empty if it is not there.
std::string take_flag(std::string_view flag, int* argc, char** argv) {
  for (int i = 1; i < *argc; ++i) {
    const std::string_view argument = argv[i];
    if (!argument.starts_with(flag)) continue;
    std::copy(argv + i + 1, argv + *argc + 1, argv + i);
    --*argc;
    return std::string(argument.substr(flag.size()));
  }
  return "";
}

}  // namespace

bool take_device_flag(int* argc, char** argv) {
  const std::string device = take_flag("--device=", argc, argv), how = take_flag("--exchange=", argc, argv);
  if (!device.empty()) {
    const auto parsed = parse_backend(device);
    const absl::Status usable = parsed.ok() ? Device::open({.backend = *parsed}).status() : parsed.status();
    if (!usable.ok()) {
      std::cerr << std::string(usable.message()) << std::endl;
      return false;
    }
    backend() = *parsed;
  }
  if (how == "peer")
    exchange() = Exchange::kPeer;
  else if (how == "host")
    exchange() = Exchange::kHost;
  else if (!how.empty()) {
    std::cerr << "--exchange=" << how << ": want peer or host" << std::endl;
    return false;
  }
  return true;
}

Outcome ask(const Model& model, const Arrangement& a, const std::vector<v1::GenerateRequest>& requests) {
  RankOptions rank;
  rank.layout = a.layout;
  rank.device = {
      .profile = a.profile, .threads = a.threads, .isa = a.isa, .control_arm = a.arm, .backend = a.on.value_or(backend())};
  // Peer memory refuses GPUs that two replicas of a process share, or two ranks of a group with one of another: there auto takes
  // what it can have.
  const bool shares = a.layout.dp > 1 || (a.layout.replica() > a.layout.tp && a.layout.tp > Device::cuda_devices());
  rank.exchange = shares && exchange() == Exchange::kPeer ? Exchange::kAuto : exchange();
  rank.page_size = a.page_size;
  rank.pages = a.pages;
  rank.trace = a.trace;
  std::vector<std::unique_ptr<Executor>> replicas;
  for (int dp = 0; dp < a.layout.dp; ++dp) {
    LocalOptions local{rank};
    if (a.delay_seed)
      local.wrap = [seed = a.delay_seed](std::unique_ptr<parallel::Transport> t) {
        const uint64_t own = seed + static_cast<uint64_t>(t->rank());
        return parallel::delayed(std::move(t), {.seed = own, .most = std::chrono::microseconds(200)});
      };
    replicas.push_back(value_or_throw(LocalExecutor::start(model.loaded(), model.digest(), local, {}), a.name.c_str()));
  }
  EngineOptions options;
  options.max_num_seqs = a.max_num_seqs;
  options.max_num_batched_tokens = a.max_num_batched_tokens;
  options.long_prefill_token_threshold = a.long_prefill_token_threshold;
  options.enable_prefix_caching = a.prefix_caching;
  options.plans_in_flight = a.plans_in_flight;
  auto engine =
      value_or_throw(Engine::start(options, model.loaded().config, model.tokenizer(), std::move(replicas)), a.name.c_str());

  if (a.warm != Arrangement::Warm::kCold) {
    Collector warm;
    int number = 0;
    for (v1::GenerateRequest r : requests) {
      r.set_request_id(absl::StrCat("warm-", number++));
      if (a.warm == Arrangement::Warm::kPartial) {
        auto* ids = r.mutable_prompt_token_ids()->mutable_ids();
        ids->Truncate((ids->size() + 1) / 2);
      }
      warm.submit(*engine, r, false);
    }
    warm.wait();
  }

  std::vector<v1::GenerateRequest> order = requests;
  std::mt19937_64 random(a.order + 77);
  if (a.order) std::shuffle(order.begin(), order.end(), random);
  Collector collector;
  int company = 0;
  std::vector<std::string> to_cancel;
  for (size_t i = 0; i < order.size(); ++i) {
    // The company is spread among the requests.
    for (; company < a.company * static_cast<int>(i + 1) / static_cast<int>(order.size()); ++company) {
      collector.submit(*engine, random_company(random, model.loaded().config.vocab_size, company), false);
      if (company < a.cancelled) to_cancel.push_back(absl::StrCat("company-", company));
    }
    collector.submit(*engine, order[i], true);
    if (a.one_by_one) collector.wait();
    if (!to_cancel.empty()) {
      (void)engine->abort(to_cancel.back());  // it may have finished already
      to_cancel.pop_back();
    }
  }
  collector.wait();
  return {collector.take(), engine->stats()};
}

std::vector<v1::GenerateRequest> mixed_requests(int64_t vocab_size, int64_t longest, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<v1::GenerateRequest> requests;
  const auto add = [&](const std::string& id, int64_t prompt, uint32_t max_tokens) {
    v1::GenerateRequest& r = requests.emplace_back();
    r.set_request_id(id);
    for (int64_t i = 0; i < prompt; ++i)
      r.mutable_prompt_token_ids()->add_ids(static_cast<int32_t>(3 + random() % (vocab_size - 3)));
    r.mutable_sampling_params()->set_max_tokens(max_tokens);
    r.mutable_sampling_params()->set_ignore_eos(true);
    r.mutable_sampling_params()->set_temperature(0);
    return r.mutable_sampling_params();
  };
  add("greedy-short", 1, 12)->set_logprobs(2);
  add("greedy-page", 16, 20);
  add("greedy-block-border", std::min<int64_t>(longest, 63), 6)->set_logprobs(0);
  add("greedy-long", longest, 8);
  auto* sampled = add("sampled", 21, 16);
  sampled->set_temperature(0.8f);
  sampled->set_seed(1234);
  sampled->set_top_p(0.95f);
  sampled->set_top_k(50);
  auto* pair = add("two-choices", 33, 10);
  pair->set_n(2);
  pair->set_temperature(1.0f);
  pair->set_seed(99);
  pair->set_min_p(0.02f);
  auto* penalised = add("penalised", 40, 12);
  penalised->set_repetition_penalty(1.2f);
  penalised->set_presence_penalty(0.3f);
  penalised->set_frequency_penalty(0.2f);
  auto* scored = add("prompt-logprobs", std::min<int64_t>(longest, 48), 3);
  scored->set_prompt_logprobs(1);
  return requests;
}

}  // namespace invar::tests
