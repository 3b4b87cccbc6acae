#include "rpc/worker_link/hello.h"

namespace invar::rpc {

v1::Layout to_proto(const parallel::Layout& layout) {
  v1::Layout out;
  out.set_tensor_parallel(static_cast<uint32_t>(layout.tp));
  out.set_pipeline_parallel(static_cast<uint32_t>(layout.pp));
  out.set_expert_parallel(static_cast<uint32_t>(layout.ep));
  out.set_data_parallel(static_cast<uint32_t>(layout.dp));
  return out;
}

v1::Hello make_hello(int replica, const parallel::Layout& layout, const ReplicaFacts& facts,
                     const std::vector<RankReport>& reports) {
  v1::Hello hello;
  hello.set_replica(static_cast<uint32_t>(replica));
  *hello.mutable_layout() = to_proto(layout);
  for (const RankReport& report : reports) {
    v1::RankInfo& rank = *hello.add_ranks();
    rank.set_rank(static_cast<uint32_t>(report.rank));
    rank.set_host(report.host);
    rank.set_pid(static_cast<uint32_t>(report.pid));
    rank.set_device(report.device);
    rank.set_numerics_id(report.numerics_id);
    rank.set_model_digest(report.model_digest);
    rank.set_build_id(report.build_id);
    rank.set_weight_bytes(static_cast<uint64_t>(report.weight_bytes));
    rank.set_kv_bytes(static_cast<uint64_t>(report.kv_bytes));
  }
  v1::Capacity& capacity = *hello.mutable_capacity();
  capacity.set_homes(static_cast<uint32_t>(facts.homes));
  capacity.set_pages_per_home(static_cast<uint64_t>(facts.pages_per_home));
  capacity.set_page_size(static_cast<uint32_t>(facts.page_size));
  capacity.set_max_positions(static_cast<uint64_t>(facts.max_positions));
  capacity.set_vocab_size(static_cast<uint32_t>(facts.vocab_size));
  capacity.set_layout(facts.layout);
  return hello;
}

v1::ReplicaInfo to_info(const v1::Hello& hello, const std::string& address) {
  v1::ReplicaInfo info;
  info.set_replica(hello.replica());
  *info.mutable_layout() = hello.layout();
  *info.mutable_ranks() = hello.ranks();
  *info.mutable_capacity() = hello.capacity();
  info.set_address(address);
  return info;
}

}  // namespace invar::rpc
