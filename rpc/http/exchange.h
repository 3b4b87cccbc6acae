// One request and the way to answer it, whole or as a stream. Between the connections (which know the HTTP library) and the
// program (which does not).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "rpc/http/message.h"

namespace invar::http {

// The body of a streamed answer. Pulled, not pushed: nothing is formatted for a client that does not read, and what waits for it
// is kept by the source in its most compact form, with its own bound.
class BodySource {
 public:
  virtual ~BodySource() = default;
  // Appends what there is to send to `out`, perhaps nothing: then Exchange::wake() must follow some day. False: that was the
  // last. A call says that what the call before gave has been written. Only from the connection's thread.
  virtual bool pull(std::string& out) = 0;
};

// Every member may be called from any thread. An exchange that is dropped without an answer answers 500 by itself.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const Request& request() const = 0;
  // Exactly one of these two, once.
  virtual void respond(Response response) = 0;
  virtual void stream(Response head, std::shared_ptr<BodySource> source) = 0;
  // pull() is called soon unless a write is under way, which calls it when it is done. Never blocks.
  virtual void wake() = 0;
  // Called once, from the connection's thread: true = the last byte of the answer was written; false = the client left before, or
  // was too slow. At once if that is so already.
  virtual void on_end(std::function<void(bool complete)> ended) = 0;
  // Added to the access log's line: "prompt_tokens=5".
  virtual void note(const std::string& words) = 0;
};

// Takes a request; called from a connection's thread, so it must not block or compute for long.
using Handler = std::function<void(std::shared_ptr<Exchange>)>;

}  // namespace invar::http
