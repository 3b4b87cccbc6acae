// invar inspect: what a model is, what it needs on a layout, and its digests; nothing is run.
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "launch/commands.h"
#include "launch/flags.h"
#include "launch/progress.h"
#include "runtime/model/decoder.h"
#include "runtime/receipt/numerics_id.h"

namespace invar::launch {
namespace {

struct Flags {
  RankFlags ranks;
  std::string positional;
  bool digest = false;
};

std::string heads(const parallel::Range& r) { return r.empty() ? "none" : absl::StrCat(r.begin, "-", r.end - 1); }

int inspect(Flags flags) {
  if (!flags.positional.empty()) flags.ranks.model.model = flags.positional;
  auto options = model_options(flags.ranks.model);
  if (!options.ok()) return fail("inspect", options.status());
  auto model = open_model(*options);
  if (!model.ok()) return fail("inspect", model.status());
  const ModelConfig& c = model->config;
  const parallel::Layout& layout = flags.ranks.layout.layout;
  const absl::Status fits = parallel::validate(layout, {c.num_layers, c.moe.num_experts});
  if (!fits.ok()) return fail("inspect", fits);
  auto rank = rank_options(flags.ranks, EngineOptions(), 1);
  if (!rank.ok()) return fail("inspect", rank.status());

  std::printf("model           %s\narchitecture    %s\n", options->path.c_str(), c.architecture.c_str());
  std::printf("layers          %ld\nhidden size     %ld\nheads           %ld query, %ld key/value, head_dim %ld\n", c.num_layers,
              c.hidden_size, c.num_heads, c.num_kv_heads, c.head_dim);
  if (c.intermediate_size > 0) std::printf("mlp             %ld\n", c.intermediate_size);
  if (c.moe.num_experts > 0)
    std::printf("experts         %ld of %ld, top %ld\n", c.moe.num_experts, c.moe.intermediate_size, c.moe.top_k);
  std::printf("vocabulary      %ld%s\npositions       %ld\n", c.vocab_size, c.tie_word_embeddings ? ", tied" : "",
              c.max_position_embeddings);
  std::printf("weights         %.1f MB in files\n", static_cast<double>(model->weights->total_bytes()) / 1e6);
  std::printf("numerics id     %s\n", numerics_id(rank->device.profile, rank->device.control_arm).c_str());
  if (flags.digest) {
    ProgressBar bar("hashing the model");
    auto digest = digest_of(*model, 2, bar.callback());
    if (!digest.ok()) return fail("inspect", digest.status());
    std::printf("model digest    %s\n", digest->c_str());
  }
  std::printf("\nlayout %s; a KV page of %ld tokens takes %ld bytes on a rank\n", parallel::to_string(layout).c_str(),
              rank->page_size, kv_page_bytes(c, layout, rank->page_size));
  std::printf("%5s %-18s %10s %8s %10s %10s %8s %12s\n", "rank", "at", "layers", "heads", "kv heads", "experts", "ships",
              "weights");
  for (int r = 0; r < layout.replica(); ++r) {
    const parallel::Coordinates at = parallel::coordinates_of(layout, r);
    const ModelShard s = ModelShard::make(c, layout, at);
    std::printf("%5d %-18s %10s %8s %10s %10s %8s %9.1f MB\n", r, absl::StrCat("pp", at.pp, " ep", at.ep, " tp", at.tp).c_str(),
                heads(s.layers).c_str(), heads(s.query_heads).c_str(), heads(s.kv_heads).c_str(), heads(s.experts).c_str(),
                absl::StrCat(s.o.nodes.size(), "+", (c.moe.num_experts > 0 ? s.expert : s.down).nodes.size()).c_str(),
                static_cast<double>(rank_weight_elements(c, s)) * 2 / 1e6);
  }
  std::printf("ships: subtrees of the o and down projections a rank sends per output, at most\n");
  return 0;
}

}  // namespace

void add_inspect(CLI::App& program, Commands& commands) {
  auto flags = std::make_shared<Flags>();
  CLI::App* app = program.add_subcommand("inspect", "what a model is and what each rank of a layout would hold; runs nothing");
  app->add_option("MODEL", flags->positional, "Hugging Face folder, or a config.json with --load-format dummy");
  add_flags(*app, flags->ranks.model);
  add_flags(*app, flags->ranks.layout);
  add_flags(*app, flags->ranks.device);
  add_flags(*app, flags->ranks.cache);
  app->add_flag("--digest", flags->digest, "also hash the whole model");
  app->footer("Example:\n  invar inspect FOLDER --tp 3 --pp 2 --digest");
  commands[app] = [flags] { return inspect(*flags); };
}

}  // namespace invar::launch
