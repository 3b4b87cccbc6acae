#include "kernels/moe/expert_order.h"

#include <stdexcept>

#include "kernels/moe/cuda/expert_order.h"
#include "kernels/moe/cuda/router.h"

namespace invar {

void order_by_expert(const Device& device, const ExpertOrder& p) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return cuda::order_by_expert(device, p);
  // Count, sum, place: tokens pass in ascending order, so they lie so.
  for (int64_t e = 0; e <= p.experts; ++e) p.offsets[e] = 0;
  for (int64_t i = 0; i < p.rows * p.top_k; ++i) ++p.offsets[p.ids[i] + 1];
  for (int64_t e = 0; e < p.experts; ++e) p.offsets[e + 1] += p.offsets[e];
  for (int64_t i = 0; i < p.rows * p.top_k; ++i) {
    const int64_t place = p.offsets[p.ids[i]]++;
    p.row_of[i] = place;
    p.token_of[place] = static_cast<int32_t>(i / p.top_k);
  }
  for (int64_t e = p.experts; e > 0; --e) p.offsets[e] = p.offsets[e - 1];  // placing moved each to its end
  p.offsets[0] = 0;
}

void route_in_order(const Device& device, const Router& router, const ExpertOrder& order) {
  if (router.rows != order.rows || router.experts != order.experts || router.top_k != order.top_k || router.ids != order.ids)
    throw std::invalid_argument("route_in_order: the order is not that of the router's choice");
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda && router.rows > 0 && cuda::route_in_order(device, router, order)) return;
  route(device, router);
  order_by_expert(device, order);
}

}  // namespace invar
