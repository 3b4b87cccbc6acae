#include "rpc/http/metrics_text.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace invar::http {
namespace {

std::string escaped(const std::string& value) {
  std::string out;
  for (const char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

class Text {
 public:
  explicit Text(const std::string& model) : model_(absl::StrCat("model_name=\"", escaped(model), "\"")) {}

  void gauge(const char* name, const char* help, double value) { one("gauge", name, help, value); }
  void counter(const char* name, const char* help, double value) { one("counter", name, help, value); }
  void head(const char* kind, const char* name, const char* help) {
    absl::StrAppend(&out, "# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n");
  }
  void sample(const char* name, const std::string& label, double value) {
    absl::StrAppendFormat(&out, "%s{%s%s%s} %.17g\n", name, model_, label.empty() ? "" : ",", label, value);
  }
  void histogram(const char* name, const char* help, const Histogram& histogram) {
    const Histogram::Snapshot h = histogram.snapshot();
    head("histogram", name, help);
    for (size_t i = 0; i < h.cumulative.size(); ++i) {
      const std::string bound = i < h.upper_bounds.size() ? absl::StrFormat("%g", h.upper_bounds[i]) : "+Inf";
      absl::StrAppend(&out, name, "_bucket{", model_, ",le=\"", bound, "\"} ", h.cumulative[i], "\n");
    }
    absl::StrAppendFormat(&out, "%s_sum{%s} %.17g\n", name, model_, h.sum);
    absl::StrAppend(&out, name, "_count{", model_, "} ", h.cumulative.back(), "\n");
  }

  std::string out;

 private:
  void one(const char* kind, const char* name, const char* help, double value) {
    head(kind, name, help);
    sample(name, "", value);
  }
  const std::string model_;
};

// Of whom a stalled step waits: the rank that does not wait, or the one with fewer collectives than the others of its group.
void add_ranks(const Engine& engine, Text& text) {
  const std::vector<RankStats> ranks = engine.ranks();
  if (ranks.empty()) return;
  const auto label = [](const RankStats& r) {
    return absl::StrCat("replica=\"", r.replica, "\",rank=\"", r.progress.rank, "\"");
  };
  const auto each = [&](const char* type, const char* name, const char* help, const auto& value) {
    text.head(type, name, help);
    for (const RankStats& r : ranks) text.sample(name, label(r), static_cast<double>(value(r)));
  };
  text.head("gauge", "invar_rank_info", "Where a rank is, in its labels.");
  for (const RankStats& r : ranks)
    text.sample("invar_rank_info", absl::StrCat(label(r), ",host=\"", escaped(r.progress.host), "\""), 1);
  each("counter", "invar_rank_steps_total", "Steps the rank is through with.",
       [](const RankStats& r) { return r.progress.steps_finished; });
  each("counter", "invar_rank_steps_begun_total", "Steps the rank has begun.",
       [](const RankStats& r) { return r.progress.steps_begun; });
  each("gauge", "invar_rank_step_age_seconds", "Since the rank's last step ended, while there are plans; 0 = idle.",
       [](const RankStats& r) { return r.step_age; });
  each("gauge", "invar_rank_progress_age_seconds",
       "Since the rank moved, by a step or a collective, while there are plans; 0 = idle.",
       [](const RankStats& r) { return r.progress_age; });
  each("gauge", "invar_rank_heard_age_seconds", "Since the rank's process was heard of, about once a second; 0 = this process.",
       [](const RankStats& r) { return r.heard_age; });
  each("counter", "invar_rank_collectives_begun_total", "Exchanges with other ranks begun.",
       [](const RankStats& r) { return r.progress.collectives_begun; });
  each("counter", "invar_rank_collectives_finished_total", "Exchanges with other ranks finished.",
       [](const RankStats& r) { return r.progress.collectives_finished; });
  each("gauge", "invar_rank_waiting", "1 = the rank waits for a peer.", [](const RankStats& r) { return r.progress.waiting; });
  text.head("gauge", "invar_rank_collective_number",
            "Number, in its group, of the exchange that the rank is in or was in last, by phase.");
  for (const RankStats& r : ranks)
    text.sample("invar_rank_collective_number", absl::StrCat(label(r), ",phase=\"", escaped(r.progress.phase), "\""),
                static_cast<double>(r.progress.collective));
}

void add_engine(const Engine& engine, Text& text) {
  const EngineStats s = engine.stats();
  text.gauge("invar_num_requests_running", "Sequences in the batch.", static_cast<double>(s.running));
  text.gauge("invar_num_requests_waiting", "Sequences waiting to be scheduled.", static_cast<double>(s.waiting));
  text.gauge("invar_kv_cache_usage_perc", "Share of KV pages in use, 1 = all.",
             s.pages_total > 0 ? static_cast<double>(s.pages_used) / static_cast<double>(s.pages_total) : 0);
  text.gauge("invar_kv_cache_pages", "KV pages there are.", static_cast<double>(s.pages_total));
  text.gauge("invar_kv_cache_pages_used", "KV pages that running sequences hold.", static_cast<double>(s.pages_used));
  text.gauge("invar_kv_cache_pages_cached", "KV pages kept for prefixes that may come again.",
             static_cast<double>(s.pages_cached));
  text.counter("invar_prompt_tokens_total", "Prompt tokens of requests that were started.", static_cast<double>(s.prompt_tokens));
  text.counter("invar_generation_tokens_total", "Tokens answered.", static_cast<double>(s.generation_tokens));
  text.counter("invar_prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
               static_cast<double>(s.prompt_tokens));
  text.counter("invar_prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", static_cast<double>(s.cached_tokens));
  text.counter("invar_num_preemptions_total", "Sequences that gave way and were computed again.",
               static_cast<double>(s.preemptions));
  text.counter("invar_requests_finished_total", "Requests answered to their end.", static_cast<double>(s.finished));
  text.counter("invar_requests_aborted_total", "Requests ended by their client or an abort.", static_cast<double>(s.aborted));
  text.counter("invar_requests_rejected_total", "Requests refused before any work.", static_cast<double>(s.rejected));
  text.counter("invar_engine_steps_total", "Steps of all replicas.", static_cast<double>(s.steps));
  text.gauge("invar_last_step_seconds", "Wall time of the last step.", s.last_step_seconds);
  text.gauge("invar_step_age_seconds", "Since the last progress while work is pending; 0 = idle.", s.seconds_since_progress);
  text.gauge("invar_engine_turn_age_seconds", "Since the engine's thread last went round.", s.seconds_since_turn);
  text.counter("invar_verified_tokens_total", "Tokens checked for verification (forced_token_ids).",
               static_cast<double>(s.verified_tokens));
  text.head("counter", "invar_engine_busy_seconds_total",
            "What the engine's thread was busy with; it sleeps the rest of the time.");
  for (const auto& [part, seconds] : {std::pair{"requests", s.busy.requests},
                                      {"plans", s.busy.plans},
                                      {"results", s.busy.results},
                                      {"answers", s.busy.answers},
                                      {"statistics", s.busy.statistics}})
    text.sample("invar_engine_busy_seconds_total", absl::StrCat("part=\"", part, "\""), seconds);
  text.histogram("invar_request_queue_time_seconds", "From submission to the first place in a step.", engine.queue_seconds());
  const auto each_replica = [&](const char* type, const char* name, const char* help, const auto& value) {
    text.head(type, name, help);
    for (size_t i = 0; i < s.per_replica.size(); ++i)
      text.sample(name, absl::StrCat("replica=\"", i, "\""), static_cast<double>(value(s.per_replica[i])));
  };
  using Replica = EngineStats::Replica;
  each_replica("gauge", "invar_replica_alive", "1 = not lost.", [](const Replica& r) { return r.alive; });
  each_replica("counter", "invar_replica_steps_total", "Steps whose result came.", [](const Replica& r) { return r.steps; });
  each_replica("gauge", "invar_replica_plans_in_flight", "Steps planned whose result has not come.",
               [](const Replica& r) { return r.plans_in_flight; });
  each_replica("gauge", "invar_replica_step_age_seconds", "Since its ranks work on the oldest plan; 0 = idle.",
               [](const Replica& r) { return r.step_age_seconds; });
  add_ranks(engine, text);
  text.gauge("invar_replicas", "Replicas there should be.", s.replicas);
  text.gauge("invar_replicas_alive", "Replicas that were not lost.", s.replicas_alive);
  text.gauge("invar_replicas_stepping", "Replicas alive and with no overdue step.", s.replicas_stepping);
}

void add_requests(const rpc::RequestMetrics& metrics, Text& text) {
  text.head("counter", "invar_request_success_total", "Answers, by how they ended.");
  const std::pair<const char*, v1::FinishReason> reasons[] = {{"stop", v1::FINISH_REASON_STOP},
                                                              {"length", v1::FINISH_REASON_LENGTH},
                                                              {"abort", v1::FINISH_REASON_ABORT},
                                                              {"error", v1::FINISH_REASON_ERROR}};
  for (const auto& [name, reason] : reasons)
    text.sample("invar_request_success_total", absl::StrCat("finished_reason=\"", name, "\""),
                static_cast<double>(metrics.finished[reason]));
  text.histogram("invar_time_to_first_token_seconds", "From submission to the first token.", metrics.time_to_first_token);
  text.histogram("invar_time_per_output_token_seconds", "Between two tokens of an answer.", metrics.inter_token);
  text.histogram("invar_e2e_request_latency_seconds", "From submission to the last token.", metrics.end_to_end);
  text.histogram("invar_request_prompt_tokens", "Tokens of a prompt.", metrics.prompt_tokens);
  text.histogram("invar_request_generation_tokens", "Tokens of an answer.", metrics.generation_tokens);
}

// Ranks and replicas compute no draw twice, so they cannot disagree about one; what they would compute with is compared before
// they are let in.
void add_mismatches(const rpc::ServingState& state, Text& text) {
  const rpc::RequestMetrics& metrics = *state.metrics();
  const std::shared_ptr<Engine> engine = state.loaded_engine();
  const EngineStats stats = engine != nullptr ? engine->stats() : EngineStats();
  text.head("counter", "invar_digest_mismatches_total",
            "By kind: tokens given for verification that this server would not have drawn; requests that required another model "
            "digest; workers refused for their model digest, numerics id or build.");
  for (const auto& [kind, count] : {std::pair{"verification", stats.verification_mismatches},
                                    {"required_model", stats.model_digest_refusals},
                                    {"rank_build", metrics.rank_mismatches[1].load()},
                                    {"rank_numerics_id", metrics.rank_mismatches[2].load()},
                                    {"rank_model", metrics.rank_mismatches[3].load()}})
    text.sample("invar_digest_mismatches_total", absl::StrCat("kind=\"", kind, "\""), static_cast<double>(count));
}

void add_process(Text& text) {
  int64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  text.gauge("process_resident_memory_bytes", "Memory of this process.", static_cast<double>(resident * sysconf(_SC_PAGESIZE)));
  std::error_code error;
  int64_t descriptors = 0;
  for (std::filesystem::directory_iterator entry("/proc/self/fd", error), end; !error && entry != end; entry.increment(error))
    ++descriptors;
  text.gauge("process_open_fds", "Open file descriptors of this process.", static_cast<double>(descriptors));
}

}  // namespace

std::string metrics_text(const rpc::ServingState& state, const std::string& model_name) {
  Text text(model_name);
  if (const std::shared_ptr<Engine> engine = state.loaded_engine()) {
    add_engine(*engine, text);
    text.head("gauge", "invar_info", "What is served, in its labels.");
    text.sample("invar_info",
                absl::StrCat("numerics_id=\"", escaped(engine->facts().numerics_id), "\",model_digest=\"",
                             escaped(engine->facts().model_digest), "\""),
                1);
  }
  text.gauge("invar_serving", "1 = new requests are taken.", state.state() == v1::SERVER_STATE_SERVING ? 1 : 0);
  text.gauge("invar_open_streams", "Requests whose answer has not reached its client, HTTP and gRPC.",
             static_cast<double>(state.open_streams()));
  add_mismatches(state, text);
  add_requests(*state.metrics(), text);
  add_process(text);
  return text.out;
}

}  // namespace invar::http
