#include "rpc/http/static_file.h"

namespace invar::http {

const StaticFile* find_static_file(std::string_view path) {
  for (const StaticFile& file : static_files())
    if (file.path == path) return &file;
  return nullptr;
}

}  // namespace invar::http
