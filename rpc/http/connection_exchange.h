// The connection's side of an exchange. Internal to this folder.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "rpc/http/connection.h"
#include "rpc/http/exchange.h"

namespace invar::http {

// Held by the connection and by whoever answers. Calls of other threads reach the connection's by a post; they must not once the
// server's threads are gone, hence ConnectionContext::gate.
class ExchangeCore {
 public:
  ExchangeCore(std::shared_ptr<ConnectionContext> context, std::weak_ptr<Connection> connection, uint64_t serial, Request request)
      : context_(std::move(context)), connection_(std::move(connection)), serial_(serial), request_(std::move(request)) {}

  const Request& request() const { return request_; }
  void respond(Response response);
  void stream(Response head, std::shared_ptr<BodySource> source);
  void wake();
  void on_end(std::function<void(bool)> ended);
  void note(const std::string& words);

  void finish(bool complete);  // by the connection, once
  std::string notes() const;

 private:
  template <class Work>
  void on_connection(Work work);  // on its thread; nothing if it is gone

  const std::shared_ptr<ConnectionContext> context_;
  const std::weak_ptr<Connection> connection_;
  const uint64_t serial_;
  const Request request_;
  mutable std::mutex mutex_;
  std::optional<bool> finished_;
  std::function<void(bool)> ended_;
  std::string notes_;
};

class ConnectionExchange final : public Exchange {
 public:
  explicit ConnectionExchange(std::shared_ptr<ExchangeCore> core) : core_(std::move(core)) {}
  ~ConnectionExchange() override;
  const Request& request() const override { return core_->request(); }
  void respond(Response response) override;
  void stream(Response head, std::shared_ptr<BodySource> source) override;
  void wake() override { core_->wake(); }
  void on_end(std::function<void(bool)> ended) override { core_->on_end(std::move(ended)); }
  void note(const std::string& words) override { core_->note(words); }

 private:
  const std::shared_ptr<ExchangeCore> core_;
  std::atomic<bool> answered_{false};
};

}  // namespace invar::http
