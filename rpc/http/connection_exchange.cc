#include "rpc/http/connection_exchange.h"

#include <shared_mutex>

#include "absl/strings/str_cat.h"
#include "rpc/http/error_body.h"

namespace invar::http {

template <class Work>
void ExchangeCore::on_connection(Work work) {
  const std::shared_lock gate(context_->gate);
  if (!context_->open) return;
  if (std::shared_ptr<Connection> connection = connection_.lock()) {
    IoThread& io = connection->io();
    boost::asio::post(io.context, [connection = std::move(connection), work = std::move(work)]() mutable { work(*connection); });
  }
}

void ExchangeCore::respond(Response response) {
  on_connection(
      [serial = serial_, response = std::move(response)](Connection& c) mutable { c.respond(serial, std::move(response)); });
}

void ExchangeCore::stream(Response head, std::shared_ptr<BodySource> source) {
  on_connection([serial = serial_, head = std::move(head), source = std::move(source)](Connection& c) mutable {
    c.stream(serial, std::move(head), std::move(source));
  });
}

void ExchangeCore::wake() {
  const std::shared_lock gate(context_->gate);
  if (!context_->open) return;
  if (std::shared_ptr<Connection> connection = connection_.lock()) {
    IoThread& io = connection->io();
    io.push(std::move(connection));
  }
}

void ExchangeCore::on_end(std::function<void(bool)> ended) {
  std::unique_lock lock(mutex_);
  if (!finished_) {
    ended_ = std::move(ended);
    return;
  }
  lock.unlock();
  ended(*finished_);
}

void ExchangeCore::finish(bool complete) {
  std::function<void(bool)> ended;
  {
    const std::lock_guard lock(mutex_);
    finished_ = complete;
    ended.swap(ended_);
  }
  if (ended) ended(complete);
}

void ExchangeCore::note(const std::string& words) {
  const std::lock_guard lock(mutex_);
  absl::StrAppend(&notes_, " ", words);
}

std::string ExchangeCore::notes() const {
  const std::lock_guard lock(mutex_);
  return notes_;
}

ConnectionExchange::~ConnectionExchange() {
  if (!answered_) core_->respond(error_response(500, "the request was dropped without an answer: a bug of the server"));
}

void ConnectionExchange::respond(Response response) {
  if (!answered_.exchange(true)) core_->respond(std::move(response));
}

void ConnectionExchange::stream(Response head, std::shared_ptr<BodySource> source) {
  if (!answered_.exchange(true)) core_->stream(std::move(head), std::move(source));
}

}  // namespace invar::http
