#include "rpc/server/tokenizer_archive.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace invar::rpc {
namespace {

constexpr int64_t kMaxBytes = int64_t{512} << 20;
constexpr uint16_t kVersion = 20, kDosDate = (1 << 5) | 1;  // 1980-01-01: the same files give the same bytes

std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < table.size(); ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) != 0 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
    table[i] = c;
  }
  return table;
}

uint32_t crc32(std::string_view bytes) {
  static const std::array<uint32_t, 256> table = crc_table();
  uint32_t c = 0xFFFFFFFFu;
  for (const char b : bytes) c = table[(c ^ static_cast<uint8_t>(b)) & 0xFF] ^ (c >> 8);
  return c ^ 0xFFFFFFFFu;
}

void le(uint64_t value, int bytes, std::string& out) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

// What a local header and a directory entry have in common, from "version needed" to the name's length.
void describe(const ArchiveFile& file, std::string& out) {
  le(kVersion, 2, out);
  le(0, 2, out);  // flags
  le(0, 2, out);  // stored
  le(0, 2, out);  // time
  le(kDosDate, 2, out);
  le(crc32(file.bytes), 4, out);
  le(file.bytes.size(), 4, out);
  le(file.bytes.size(), 4, out);
  le(file.name.size(), 2, out);
  le(0, 2, out);  // extra field
}

bool belongs(const std::string& name) {
  static const std::set<std::string> names = {"tokenizer.json",
                                              "tokenizer_config.json",
                                              "config.json",
                                              "generation_config.json",
                                              "special_tokens_map.json",
                                              "vocab.json",
                                              "merges.txt",
                                              "added_tokens.json",
                                              "chat_template.json"};
  return names.contains(name) || absl::EndsWith(name, ".jinja") || absl::EndsWith(name, ".model") ||
         absl::EndsWith(name, ".tiktoken");
}

}  // namespace

std::string make_zip(const std::vector<ArchiveFile>& files) {
  std::string out, directory;
  for (const ArchiveFile& file : files) {
    const size_t offset = out.size();
    le(0x04034b50, 4, out);
    describe(file, out);
    out += file.name;
    out += file.bytes;
    le(0x02014b50, 4, directory);
    le(kVersion, 2, directory);  // made by
    describe(file, directory);
    le(0, 2, directory);  // comment
    le(0, 2, directory);  // disk
    le(0, 2, directory);  // internal attributes
    le(0, 4, directory);  // external attributes
    le(offset, 4, directory);
    directory += file.name;
  }
  const size_t start = out.size();
  out += directory;
  le(0x06054b50, 4, out);
  le(0, 2, out);
  le(0, 2, out);
  le(files.size(), 2, out);
  le(files.size(), 2, out);
  le(directory.size(), 4, out);
  le(start, 4, out);
  le(0, 2, out);  // comment
  return out;
}

absl::StatusOr<std::string> tokenizer_archive(const std::filesystem::path& folder) {
  std::error_code error;
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.is_regular_file(error) && belongs(entry.path().filename().string())) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  if (paths.empty()) return absl::NotFoundError(absl::StrCat("no tokenizer files in ", folder.string()));
  int64_t total = 0;
  std::vector<ArchiveFile> files;
  for (const std::filesystem::path& path : paths) {
    const auto size = std::filesystem::file_size(path, error);
    if (error || (total += static_cast<int64_t>(size)) > kMaxBytes)
      return absl::ResourceExhaustedError(
          absl::StrCat(path.string(), ": the tokenizer's files are more than ", kMaxBytes, " bytes"));
    std::ifstream in(path, std::ios::binary);
    files.push_back({path.filename().string(), std::string(std::istreambuf_iterator<char>(in), {})});
    if (!in.good() && !in.eof()) return absl::UnavailableError(absl::StrCat(path.string(), ": cannot be read"));
  }
  return make_zip(files);
}

}  // namespace invar::rpc
