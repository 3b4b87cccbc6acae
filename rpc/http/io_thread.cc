#include "rpc/http/io_thread.h"

#include "rpc/http/connection.h"

namespace invar::http {

void IoThread::push(std::shared_ptr<Connection> connection) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    ready_.push_back(std::move(connection));
    first = ready_.size() == 1;
  }
  if (first) boost::asio::post(context, [this] { drain(); });
}

void IoThread::drain() {
  std::vector<std::shared_ptr<Connection>> ready;
  {
    const std::lock_guard lock(mutex_);
    ready.swap(ready_);
  }
  for (const auto& connection : ready) connection->pump();
}

}  // namespace invar::http
