#include "kernels/linear/cuda/portable_plan.h"

#include <algorithm>

#include "kernels/linear/cuda/portable_layout.h"

namespace invar::cuda::portable {

namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t kRingBytes = 128 << 10;  // of a multiprocessor; more in flight gains nothing

// What the schedules cost, in clock cycles of an H100 (README.md, "Measured").
constexpr double kBytesACycle = 15;              // of memory, a multiprocessor's share
constexpr double kStreamStart = 3500;            // launch, rows of x, first weights, the folds
constexpr double kClusterStart = 2500;           // more of it where blocks of a cluster fold together
constexpr double kClusterTurn = 600;             // and for each turn and block of a cluster
constexpr double kTileCycles[2] = {2690, 5170};  // 16 k of a tile of 128 and of 256 rows
// A step (8 k of a warp's two leaves): what one warp alone takes, and how often a multiprocessor with many warps ends one.
double step_latency(int pass_rows) { return 270 + 65.0 * pass_rows; }
double step_interval(int pass_rows) { return 35 + 15.0 * pass_rows; }

bool whole_steps(const LeafOrder& order) {
  bool whole = order.leaf > 0 && !order.swapped && order.leaves() > 0;
  for (int s = 0; s <= order.spans; ++s) whole &= order.begin[s] % kPanelStep == 0;
  return whole;
}

// Slots of a tile: the fold of a span that has several leaves, and the tree's operands that wait on levels 0 and 1.
int tile_slots(const LeafOrder& order, const Target& target) {
  int slots = 0;
  for (int s = 0; s < order.spans; ++s) slots = std::max(slots, order.first_leaf[s + 1] - order.first_leaf[s] > 1 ? 1 : 0);
  for (int i = 0; target.row_parallel && i < target.nodes; ++i)
    if (target.level[i] > 0) slots = std::max(slots, 1 + std::min<int>(target.level[i], 2));
  return slots;
}

}  // namespace

Plan stream_plan(const Machine& machine, const LeafOrder& order, const Target& target, int pass_rows, int cluster, int resident,
                 int stages) {
  Plan plan;
  plan.pass_rows = pass_rows;
  const int64_t passes = divide_up(target.rows, pass_rows), warps = divide_up(divide_up(order.leaves(), 2), cluster);
  if (!whole_steps(order) || warps > stream_warps(pass_rows) || passes > 65535) return Plan{};
  const int64_t room = (machine.shared_memory + 1024) / resident - 1024;  // a block's; the system takes 1 KB of each
  const int64_t fixed = static_cast<int64_t>(stream_shared(pass_rows, static_cast<int>(warps), 0).bytes),
                stage = warps * kStageBytes;
  const int64_t wanted = stages ? stages : std::max<int64_t>(kRingBytes / resident / stage, kLeastStages);
  plan.stages = static_cast<int>(std::min<int64_t>({wanted, (room - fixed) / stage, kMostStages}));
  if (plan.stages < kLeastStages || resident * warps > stream_warps(pass_rows)) return Plan{};
  plan.schedule = Schedule::kStream;
  plan.passes = static_cast<int>(passes);
  plan.cluster = cluster;
  plan.warps = static_cast<int>(warps);
  plan.shared = static_cast<size_t>(fixed + plan.stages * stage);
  // Clusters of 4 and 8 lie within a GPC, of whose multiprocessors 16 serve them.
  const int64_t reached = cluster > 2 ? machine.multiprocessors / 16 * 16 : machine.multiprocessors;
  plan.clusters = static_cast<int>(std::clamp<int64_t>(resident * reached / cluster / passes, 1, panels(target.outputs)));
  return plan;
}

Plan tile_plan(const Machine& machine, const LeafOrder& order, const Target& target, int tile_rows) {
  Plan plan;
  plan.tile_rows = tile_rows;
  plan.shared = 2 * tile_stage_bytes(tile_rows) + tile_slots(order, target) * tile_slot_bytes(tile_rows);
  if (whole_steps(order) && plan.shared <= static_cast<size_t>(machine.shared_memory)) plan.schedule = Schedule::kTiles;
  return plan;
}

double predicted_cycles(const Machine& machine, const LeafOrder& order, const Target& target, const Plan& plan) {
  const double k = order.begin[order.spans];
  if (plan.schedule == Schedule::kTiles) {
    const int64_t blocks = divide_up(target.rows, plan.tile_rows) * divide_up(target.outputs, kTileOutputs);
    return static_cast<double>(divide_up(blocks, machine.multiprocessors)) * k / kTileK * kTileCycles[plan.tile_rows > 128];
  }
  // All passes are under way at once; blocks go from panel to panel together.
  const double blocks = static_cast<double>(plan.clusters) * plan.cluster * plan.passes;
  const double turns = static_cast<double>(divide_up(panels(target.outputs), plan.clusters));
  const double warps = static_cast<double>(divide_up(static_cast<int64_t>(blocks), machine.multiprocessors)) * plan.warps;
  const double steps = order.leaf / kStageK;
  const double working = steps * std::max(step_latency(plan.pass_rows), step_interval(plan.pass_rows) * warps);
  const double reading =
      static_cast<double>(plan.clusters) * k * kPanel * sizeof(Bf16) / (kBytesACycle * machine.multiprocessors);
  // Not all clusters of 4 and 8 that would fill the multiprocessors find room at once.
  const double scattered = plan.cluster > 2 ? 2.5 : 1;
  return scattered * (kStreamStart + (plan.cluster > 1 ? kClusterStart : 0) +
                      turns * (std::max(working, reading) + (plan.cluster > 1 ? kClusterTurn * plan.cluster : 0)));
}

Plan make_plan(const Machine& machine, const LeafOrder& order, const Target& target, bool aligned) {
  Plan best;
  if (!aligned || !whole_steps(order)) return best;
  double least = 0;
  const auto consider = [&](const Plan& plan) {
    if (plan.schedule == Schedule::kAnyShape) return;
    const double cycles = predicted_cycles(machine, order, target, plan);
    if (best.schedule == Schedule::kAnyShape || cycles < least) best = plan, least = cycles;
  };
  for (int pass_rows = 1; pass_rows <= kMostPassRows; pass_rows *= 2) {
    const bool enough = pass_rows >= target.rows;
    if (enough || pass_rows >= kMostPassRows / 2)
      for (const int cluster : {1, 2, 4, 8})
        for (int resident = 1; resident <= 8; resident *= 2)
          consider(stream_plan(machine, order, target, pass_rows, cluster, resident, 0));
    if (enough) break;
  }
  if (target.rows > kMostPassRows || best.schedule == Schedule::kAnyShape)
    for (const int tile_rows : {128, 256}) consider(tile_plan(machine, order, target, tile_rows));
  return best;
}

}  // namespace invar::cuda::portable
