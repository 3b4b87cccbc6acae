// Files of rpc/http/page, carried in the program: what is put there is served under its name, index.html also as "/".
#pragma once

#include <span>
#include <string_view>

namespace invar::http {

struct StaticFile {
  std::string_view path;  // "/index.html"
  std::string_view content_type;
  std::string_view body;
};

std::span<const StaticFile> static_files();
const StaticFile* find_static_file(std::string_view path);  // null = there is none

}  // namespace invar::http
