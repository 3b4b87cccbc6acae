// One HTTP request for tokens, from its submission to the last byte of its answer. The head of a stream is held back until there
// is something to stream: what fails before has a status of its own, as a whole answer has.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>

#include "rpc/http/answer.h"
#include "rpc/http/exchange.h"
#include "rpc/http/generation.h"
#include "rpc/http/work_pool.h"
#include "rpc/server/serving_state.h"

namespace invar::http {

class Call final : public BodySource, public std::enable_shared_from_this<Call> {
 public:
  struct Limits {
    int64_t most_buffered_bytes = 1 << 20;  // of a stream, waiting for a slow reader
    int64_t most_answer_bytes = 256 << 20;  // of a whole answer
  };

  // Answers `exchange`: with an error, whole, or as a stream. `held` is let go when the answer has reached the client or never
  // will.
  static void start(std::shared_ptr<Exchange> exchange, const std::shared_ptr<Engine>& engine,
                    std::shared_ptr<rpc::ServingState> state, std::shared_ptr<WorkPool> pool, std::unique_ptr<Answer> answer,
                    std::vector<v1::GenerateRequest> requests, const Limits& limits, std::shared_ptr<void> held);

  Call(std::shared_ptr<Exchange> exchange, std::shared_ptr<rpc::ServingState> state, std::shared_ptr<WorkPool> pool,
       std::unique_ptr<Answer> answer, std::shared_ptr<void> held);
  bool pull(std::string& out) override;

 private:
  void answer_whole();
  void begin_stream();
  bool events(const Generation::News& news, std::string& out);  // false: that were the last
  void refuse(const absl::Status& why);
  void over(bool complete);

  const std::shared_ptr<Exchange> exchange_;
  const std::shared_ptr<rpc::ServingState> state_;
  const std::shared_ptr<WorkPool> pool_;  // the engine's thread may post when the service is gone
  const std::unique_ptr<Answer> answer_;
  std::shared_ptr<void> held_;
  std::shared_ptr<Generation> generation_;
  std::atomic<bool> streaming_{false};
  std::optional<Generation::News> first_;  // of a stream, taken before its head was sent
};

}  // namespace invar::http
