#include "launch/local_engine.h"

#include <condition_variable>
#include <mutex>

#include "launch/progress.h"

namespace invar::launch {

absl::StatusOr<LocalEngine> start_local_engine(const RankFlags& flags, const EngineFlags& engine_flags) {
  const EngineOptions engine = engine_options(engine_flags, flags);
  auto options = rank_options(flags, engine, flags.layout.layout.world());
  if (!options.ok()) return options.status();
  auto model_flags = model_options(flags.model);
  if (!model_flags.ok()) return model_flags.status();
  auto model = open_model(*model_flags);
  if (!model.ok()) return model.status();
  LocalEngine local;
  local.model = std::make_unique<LoadedModel>(*std::move(model));
  auto tokenizer = load_tokenizer(flags.model);
  if (!tokenizer.ok()) return tokenizer.status();
  {
    ProgressBar bar("hashing the model");
    auto digest = digest_of(*local.model, 2, bar.callback());
    if (!digest.ok()) return digest.status();
    local.digest = *std::move(digest);
  }
  std::vector<std::unique_ptr<Executor>> replicas;
  for (int dp = 0; dp < options->layout.dp; ++dp) {
    ProgressBar bar("loading weights");
    LocalOptions one{*options};
    one.first_rank = dp * options->layout.replica();
    if (!one.rank.trace.empty() && dp > 0) one.rank.trace += ".dp" + std::to_string(dp);
    auto executor = LocalExecutor::start(*local.model, local.digest, one, bar.callback());
    if (!executor.ok()) return executor.status();
    for (RankReport report : (*executor)->reports()) {
      report.rank += dp * options->layout.replica();
      local.ranks.push_back(std::move(report));
    }
    replicas.push_back(*std::move(executor));
  }
  auto started = Engine::start(engine, local.model->config, *std::move(tokenizer), std::move(replicas));
  if (!started.ok()) return started.status();
  local.engine = *std::move(started);
  return local;
}

namespace {

// Choices in order of their index; a request may have asked for one of them only.
v1::ChoiceDelta* choice_of(uint32_t index, v1::GenerateResponse& whole) {
  int at = 0;
  while (at < whole.choices_size() && whole.choices(at).index() < index) ++at;
  if (at < whole.choices_size() && whole.choices(at).index() == index) return whole.mutable_choices(at);
  whole.add_choices()->set_index(index);
  for (int i = whole.choices_size() - 1; i > at; --i) whole.mutable_choices()->SwapElements(i, i - 1);
  return whole.mutable_choices(at);
}

}  // namespace

void append_response(v1::GenerateResponse& whole, const v1::GenerateResponse& delta) {
  whole.set_request_id(delta.request_id());
  for (const v1::ChoiceDelta& d : delta.choices()) {
    v1::ChoiceDelta* to = choice_of(d.index(), whole);
    to->mutable_text()->append(d.text());
    to->mutable_token_ids()->MergeFrom(d.token_ids());
    to->mutable_logprobs()->MergeFrom(d.logprobs());
    to->mutable_logits_hashes()->MergeFrom(d.logits_hashes());
    to->mutable_draws()->MergeFrom(d.draws());
    if (d.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) to->set_finish_reason(d.finish_reason());
    if (!d.stop_reason().empty()) to->set_stop_reason(d.stop_reason());
    if (!d.response_digest().empty()) to->set_response_digest(d.response_digest());
    if (d.has_receipt()) *to->mutable_receipt() = d.receipt();
  }
  whole.mutable_prompt_logprobs()->MergeFrom(delta.prompt_logprobs());
  if (delta.has_usage()) *whole.mutable_usage() = delta.usage();
  if (delta.finished()) whole.set_finished(true);
}

std::vector<absl::StatusOr<v1::GenerateResponse>> run_all(Engine& engine, const std::vector<v1::GenerateRequest>& requests) {
  std::mutex mutex;
  std::condition_variable changed;
  size_t done = 0;
  std::vector<absl::StatusOr<v1::GenerateResponse>> answers(requests.size(), v1::GenerateResponse());
  for (size_t i = 0; i < requests.size(); ++i) {
    auto id = engine.submit(requests[i], [&, i](const absl::Status& status, const v1::GenerateResponse* response) {
      const std::lock_guard lock(mutex);
      if (!status.ok())
        answers[i] = status;
      else
        append_response(*answers[i], *response);
      if (!status.ok() || response->finished()) {
        ++done;
        changed.notify_all();
      }
    });
    if (!id.ok()) {
      const std::lock_guard lock(mutex);
      answers[i] = id.status();
      ++done;
    }
  }
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return done == requests.size(); });  // the engine ends every request, with an error if it must
  return answers;
}

}  // namespace invar::launch
