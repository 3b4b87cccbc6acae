#include "runtime/model/rank_weights.h"

#include <algorithm>

#include "runtime/model_config/weight_names.h"

namespace invar {
namespace {

// One loader per rank: carries the error of the first failing read so that the layer code stays a list of what is held.
class Loader {
 public:
  Loader(const Device& device, const WeightSource& source, const LoadProgressFn& progress, int64_t total_elements)
      : device_(device), source_(source), progress_(progress), total_(total_elements * 2) {}

  const absl::Status& status() const { return status_; }

  // Ranges of vectors, one after the other.
  struct Piece {
    std::string name;
    Range range;
  };
  DeviceArray<Bf16> vector(const std::vector<Piece>& pieces) { return DeviceArray<Bf16>(device_, values(pieces)); }
  DeviceArray<Bf16> vector(const std::string& name, int64_t count) { return vector({{name, {0, count}}}); }
  std::vector<Bf16> values(const std::vector<Piece>& pieces) {
    std::vector<Bf16> values;
    for (const auto& [name, range] : pieces) {
      if (range.empty()) continue;
      const size_t at = values.size();
      values.resize(at + static_cast<size_t>(range.size()));
      read(name, range.begin, range.size(), 0, 1, values.data() + at, 1);
    }
    return values;
  }

  PackedWeights matrix(int64_t outputs, int64_t inputs) { return PackedWeights(device_, outputs, inputs); }

  GatedWeights gated(Range width, Range inputs, const std::string& gate, const std::string& up) {
    GatedWeights w(device_, width.size(), inputs.size());
    pack(gate, width, inputs, [&](auto... rows) { w.pack_gate(rows...); });
    pack(up, width, inputs, [&](auto... rows) { w.pack_up(rows...); });
    return w;
  }
  void bias(GatedWeights& w, Range width, const std::string& gate, const std::string& up) {
    w.set_bias(device_, values({{gate, width}}), values({{up, width}}));
  }

  // Rows row x columns col of a tensor become outputs from `first_output` on.
  void pack(PackedWeights& into, int64_t first_output, const std::string& name, Range row, Range col) {
    pack(name, row, col, [&](int64_t first, const Bf16* rows, int64_t count, int64_t stride) {
      into.pack_rows(first_output + first, rows, count, stride);
    });
  }

 private:
  // take(first, rows, count, stride): that many rows from `first` of the range on; first is a multiple of 32. The device's
  // threads read side by side.
  template <class Take>
  void pack(const std::string& name, Range row, Range col, const Take& take) {
    if (row.empty() || col.empty()) return;
    const int threads = device_.pool().threads();
    const int64_t piece = std::max<int64_t>(32, kPieceElements / col.size() / 32 * 32), block = piece * threads;
    scratch_.resize(static_cast<size_t>(std::min(block, row.size()) * col.size()));
    for (int64_t r = 0; r < row.size() && status_.ok(); r += block) {
      const int64_t n = std::min(block, row.size() - r), pieces = (n + piece - 1) / piece;
      std::vector<absl::Status> statuses(static_cast<size_t>(pieces));
      device_.pool().run(pieces, [&](int64_t i) {
        const int64_t first = i * piece, count = std::min(piece, n - first);
        statuses[i] = source_.read_rows(name, row.begin + r + first, count, col.begin, col.size(),
                                        scratch_.data() + first * col.size(), col.size());
      });
      for (const absl::Status& status : statuses) status_.Update(status);
      if (status_.ok()) take(r, scratch_.data(), n, col.size());
      report(name, n * col.size());
    }
  }
  void read(const std::string& name, int64_t row0, int64_t rows, int64_t col0, int64_t cols, Bf16* out, int64_t stride) {
    if (!status_.ok()) return;
    status_ = source_.read_rows(name, row0, rows, col0, cols, out, stride);
    report(name, rows * cols);
  }
  void report(const std::string& name, int64_t elements) {
    done_ += elements * 2;
    if (progress_) progress_({done_, total_, name});
  }

  static constexpr int64_t kPieceElements = int64_t{1} << 20;

  const Device& device_;
  const WeightSource& source_;
  const LoadProgressFn& progress_;
  int64_t total_;
  int64_t done_ = 0;
  absl::Status status_;
  std::vector<Bf16> scratch_;
};

void load_attention(Loader& load, const ModelConfig& c, const ModelShard& s, const WeightNames& names, int64_t layer,
                    LayerWeights& w) {
  const int64_t hd = c.head_dim;
  const Range q = s.o.k, kv = {s.kv_heads.begin * hd, s.kv_heads.end * hd}, all = {0, c.hidden_size};
  w.input_norm = load.vector(names.input_norm(layer), c.hidden_size);
  w.qkv = load.matrix(q.size() + 2 * kv.size(), c.hidden_size);
  load.pack(w.qkv, 0, names.q_weight(layer), q, all);
  load.pack(w.qkv, q.size(), names.k_weight(layer), kv, all);
  load.pack(w.qkv, q.size() + kv.size(), names.v_weight(layer), kv, all);
  if (c.qkv_bias) w.qkv_bias = load.vector({{names.q_bias(layer), q}, {names.k_bias(layer), kv}, {names.v_bias(layer), kv}});
  if (c.qk_norm) {
    w.q_norm = load.vector(names.q_norm(layer), hd);
    w.k_norm = load.vector(names.k_norm(layer), hd);
  }
  w.o = load.matrix(c.hidden_size, q.size());
  load.pack(w.o, 0, names.o_weight(layer), all, q);
  if (c.o_bias) w.o_bias = load.vector(names.o_bias(layer), c.hidden_size);
}

void load_dense_mlp(Loader& load, const ModelConfig& c, const ModelShard& s, const WeightNames& names, int64_t layer,
                    LayerWeights& w) {
  const Range k = s.down.k, all = {0, c.hidden_size};
  w.gate_up = load.gated(k, all, names.gate_weight(layer), names.up_weight(layer));
  w.down = load.matrix(c.hidden_size, k.size());
  load.pack(w.down, 0, names.down_weight(layer), all, k);
  if (c.mlp_bias) {
    load.bias(w.gate_up, k, names.gate_bias(layer), names.up_bias(layer));
    w.down_bias = load.vector(names.down_bias(layer), c.hidden_size);
  }
}

void load_experts(Loader& load, const ModelConfig& c, const ModelShard& s, const WeightNames& names, int64_t layer,
                  LayerWeights& w) {
  const Range k = s.expert.k, all = {0, c.hidden_size};
  w.moe = true;
  w.router = load.matrix(c.moe.num_experts, c.hidden_size);
  load.pack(w.router, 0, names.router(layer), {0, c.moe.num_experts}, all);
  for (int64_t e = s.experts.begin; e < s.experts.end; ++e) {
    ExpertWeights& x = w.experts.emplace_back();
    x.gate_up = load.gated(k, all, names.expert_gate(layer, e), names.expert_up(layer, e));
    x.down = load.matrix(c.hidden_size, k.size());
    load.pack(x.down, 0, names.expert_down(layer, e), all, k);
  }
}

}  // namespace

int64_t rank_weight_elements(const ModelConfig& c, const ModelShard& s) {
  const int64_t h = c.hidden_size, hd = c.head_dim;
  int64_t n = 0;
  for (int64_t l = s.layers.begin; l < s.layers.end; ++l) {
    n += 2 * h + (s.o.k.size() + 2 * s.kv_heads.size() * hd) * h + s.o.k.size() * h;
    if (c.moe_layer[l])
      n += c.moe.num_experts * h + s.experts.size() * 3 * s.expert.k.size() * h;
    else
      n += 3 * s.down.k.size() * h;
  }
  const bool shared = c.tie_word_embeddings && s.first_stage && s.last_stage;
  if (s.first_stage) n += s.vocabulary.size() * h;
  if (s.last_stage && !shared) n += s.vocabulary.size() * h;
  return n;
}

absl::StatusOr<RankWeights> load_rank_weights(const Device& device, const ModelConfig& c, const ModelShard& s,
                                              const WeightSource& source, const LoadProgressFn& progress) {
  const WeightNames names(c);
  Loader load(device, source, progress, rank_weight_elements(c, s));
  RankWeights w;
  const Range all = {0, c.hidden_size};
  if (s.first_stage) {
    w.embedding = std::make_shared<PackedWeights>(device, s.vocabulary.size(), c.hidden_size);
    load.pack(*w.embedding, 0, names.embed(), s.vocabulary, all);
  }
  for (int64_t l = s.layers.begin; l < s.layers.end && load.status().ok(); ++l) {
    LayerWeights& layer = w.layers.emplace_back();
    load_attention(load, c, s, names, l, layer);
    layer.post_attention_norm = load.vector(names.post_attention_norm(l), c.hidden_size);
    if (c.moe_layer[l])
      load_experts(load, c, s, names, l, layer);
    else
      load_dense_mlp(load, c, s, names, l, layer);
  }
  if (s.last_stage) {
    w.final_norm = load.vector(names.final_norm(), c.hidden_size);
    if (c.tie_word_embeddings && w.embedding) {
      w.head = w.embedding;
    } else {
      w.head = std::make_shared<PackedWeights>(device, s.vocabulary.size(), c.hidden_size);
      load.pack(*w.head, 0, names.lm_head(), s.vocabulary, all);
    }
  }
  if (!load.status().ok()) return load.status();
  return w;
}

size_t RankWeights::bytes() const {
  size_t n = 0;
  for (const LayerWeights& l : layers) {
    n += l.qkv.bytes() + l.o.bytes() + l.gate_up.bytes() + l.down.bytes() + l.router.bytes();
    for (const ExpertWeights& e : l.experts) n += e.gate_up.bytes() + e.down.bytes();
  }
  if (embedding) n += embedding->bytes();
  if (head && head != embedding) n += head->bytes();
  return n;
}

}  // namespace invar
