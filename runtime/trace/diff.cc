#include "runtime/trace/diff.h"

#include <google/protobuf/io/zero_copy_stream_impl.h>
#include <google/protobuf/util/delimited_message_util.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/numerics.h"

namespace invar {
namespace {

// Order of the keys is the order of cause within a request: token, then layer, then operator.
using TokenKey = std::tuple<std::string, uint32_t, uint32_t>;  // request, choice, position

struct OperatorKey {
  int32_t layer;  // the embedding sorts before layer 0, norm and head after the last
  v1::TraceOperatorKind kind;
  auto operator<=>(const OperatorKey&) const = default;
};

// One operator's row put together from the shards of the ranks.
struct Row {
  struct Piece {
    uint32_t columns;
    uint64_t digest;
    std::string values;
  };
  uint32_t element_bytes = 0;
  std::map<uint32_t, Piece> pieces;  // by first column: the same columns from another rank replace, they never add twice

  uint64_t digest() const {
    uint64_t sum = 0;
    for (const auto& [first, piece] : pieces) sum += piece.digest;
    return sum;
  }
  std::map<uint32_t, uint32_t> bits() const {
    std::map<uint32_t, uint32_t> out;
    for (const auto& [first, piece] : pieces)
      for (uint32_t c = 0; (c + 1) * element_bytes <= piece.values.size(); ++c) {
        uint32_t u = 0;
        std::memcpy(&u, piece.values.data() + c * element_bytes, element_bytes);
        out[first + c] = u;
      }
    return out;
  }
};

struct Trace {
  std::string layout, numerics_id;
  std::map<TokenKey, std::map<OperatorKey, Row>> tokens;
};

void add_step(Trace& trace, const v1::TraceStep& step) {
  for (const v1::TraceOperator& op : step.operators()) {
    const int count = op.digests_size();
    const size_t row_bytes = size_t{op.columns()} * op.element_bytes();
    for (int i = 0; i < count; ++i) {
      const int index = op.rows_size() ? static_cast<int>(op.rows(i)) : i;
      if (index >= step.rows_size()) continue;
      const v1::TraceRow& at = step.rows(index);
      const int32_t layer = op.layer() >= 0 ? op.layer() : op.kind() == v1::EMBED ? -1 : INT32_MAX;
      Row& row = trace.tokens[{at.request(), at.choice(), at.position()}][{layer, op.kind()}];
      row.element_bytes = op.element_bytes();
      Row::Piece& piece = row.pieces[op.first_column()];
      piece.columns = op.columns();
      piece.digest = op.digests(i);
      piece.values = op.values().size() >= (i + 1) * row_bytes ? op.values().substr(i * row_bytes, row_bytes) : std::string();
    }
  }
}

absl::StatusOr<Trace> read_trace(const std::string& prefix) {
  namespace fs = std::filesystem;
  const fs::path path(prefix);
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const std::string stem = path.filename().string() + ".r";
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string file = entry.path().filename().string();
    if (file.size() > stem.size() && file.compare(0, stem.size(), stem) == 0 &&
        std::all_of(file.begin() + static_cast<long>(stem.size()), file.end(), [](char c) { return c >= '0' && c <= '9'; }))
      files.push_back(entry.path());
  }
  if (files.empty())
    return absl::NotFoundError(absl::StrCat("no trace files ", prefix, ".r<rank>: was --trace ", prefix, " given?"));
  std::sort(files.begin(), files.end());
  Trace trace;
  for (const fs::path& file : files) {
    std::ifstream in(file, std::ios::binary);
    google::protobuf::io::IstreamInputStream stream(&in);
    v1::TraceEntry entry;
    bool clean_end = false;
    while (google::protobuf::util::ParseDelimitedFromZeroCopyStream(&entry, &stream, &clean_end)) {
      if (entry.has_header()) {
        trace.layout = entry.header().layout();
        trace.numerics_id = entry.header().numerics_id();
      } else if (entry.has_step()) {
        add_step(trace, entry.step());
      }
      entry.Clear();
    }
    if (!clean_end)
      return absl::InvalidArgumentError(absl::StrCat(file.string(), ": not a trace entry at byte ", stream.ByteCount()));
  }
  return trace;
}

std::optional<TraceDifference> compare_token(const TokenKey& key, const std::map<OperatorKey, Row>& a,
                                             const std::map<OperatorKey, Row>& b, uint64_t& compared) {
  const auto difference = [&](const OperatorKey& op) {
    TraceDifference d;
    std::tie(d.request, d.choice, d.position) = key;
    d.layer = op.layer == INT32_MAX ? -1 : op.layer;
    d.kind = op.kind;
    return d;
  };
  auto ia = a.begin();
  auto ib = b.begin();
  while (ia != a.end() || ib != b.end()) {
    if (ib == b.end() || (ia != a.end() && ia->first < ib->first)) {
      TraceDifference d = difference(ia->first);
      d.missing = "B";
      return d;
    }
    if (ia == a.end() || ib->first < ia->first) {
      TraceDifference d = difference(ib->first);
      d.missing = "A";
      return d;
    }
    ++compared;
    if (ia->second.digest() != ib->second.digest()) {
      TraceDifference d = difference(ia->first);
      const auto bits_a = ia->second.bits(), bits_b = ib->second.bits();
      TraceDifference::Element e;
      e.bytes = ia->second.element_bytes;
      for (const auto& [column, bits] : bits_a) {
        const auto other = bits_b.find(column);
        if (other == bits_b.end() || other->second == bits) continue;
        if (e.differing++ == 0) {
          e.column = column;
          e.bits_a = bits;
          e.bits_b = other->second;
        }
      }
      if (e.differing) d.element = e;
      return d;
    }
    ++ia;
    ++ib;
  }
  return std::nullopt;
}

std::string value_text(uint32_t bits, uint32_t bytes, v1::TraceOperatorKind kind) {
  if (kind == v1::EXPERT_IDS || kind == v1::DRAW) return absl::StrCat(static_cast<int32_t>(bits));
  if (bytes == 2) return absl::StrFormat("%g (0x%04x)", numerics::bits_float(bits << 16), bits);
  return absl::StrFormat("%.9g (0x%08x)", numerics::bits_float(bits), bits);
}

}  // namespace

absl::StatusOr<TraceComparison> compare_traces(const std::string& path_a, const std::string& path_b) {
  auto a = read_trace(path_a);
  if (!a.ok()) return a.status();
  auto b = read_trace(path_b);
  if (!b.ok()) return b.status();
  TraceComparison out;
  out.layout_a = a->layout;
  out.layout_b = b->layout;
  out.numerics_id_a = a->numerics_id;
  out.numerics_id_b = b->numerics_id;
  for (const auto& [key, operators] : a->tokens) {
    const auto other = b->tokens.find(key);
    if (other == b->tokens.end()) {
      ++out.only_in_a;
      continue;
    }
    ++out.tokens;
    auto difference = compare_token(key, operators, other->second, out.operators);
    if (!difference) continue;
    ++out.differing_tokens;
    if (!out.first) out.first = std::move(difference);
  }
  for (const auto& [key, operators] : b->tokens)
    if (!a->tokens.count(key)) ++out.only_in_b;
  return out;
}

std::string describe(const TraceComparison& c) {
  std::string text = absl::StrCat("A: ", c.layout_a, ", ", c.numerics_id_a, "\nB: ", c.layout_b, ", ", c.numerics_id_b, "\n",
                                  c.tokens, " tokens and ", c.operators, " operator results compared");
  if (c.only_in_a || c.only_in_b) absl::StrAppend(&text, "; ", c.only_in_a, " tokens only in A, ", c.only_in_b, " only in B");
  text += "\n";
  if (!c.first) return text + (c.tokens ? "equal\n" : "no token is in both traces: are these the same requests?\n");
  const TraceDifference& d = *c.first;
  const std::string name = v1::TraceOperatorKind_Name(d.kind);
  absl::StrAppend(&text, c.differing_tokens, " tokens differ; first: request ", d.request, " choice ", d.choice,
                  ", token at position ", d.position, ", ",
                  d.layer >= 0 ? absl::StrCat("layer ", d.layer) : std::string("outside the layers"), ", operator ", name, "\n");
  if (!d.missing.empty()) {
    absl::StrAppend(&text, "  ", d.missing, " has no such result\n");
  } else if (d.element) {
    absl::StrAppend(&text, "  element ", d.element->column, ": A ", value_text(d.element->bits_a, d.element->bytes, d.kind),
                    ", B ", value_text(d.element->bits_b, d.element->bytes, d.kind), "; ", d.element->differing,
                    " elements of this row differ\n");
  } else {
    text += "  digests differ; record both with --trace-detail values to see the element\n";
  }
  return text;
}

}  // namespace invar
