// The tokenizer of a model folder as one zip archive, for gateways that tokenise themselves.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace invar::rpc {

struct ArchiveFile {
  std::string name;
  std::string bytes;
};

// A zip archive of files stored as they are (tokenizer.json compresses well, but is sent once a gateway). Names are plain file
// names. All together below 4 GiB.
std::string make_zip(const std::vector<ArchiveFile>& files);

// Tokenizer, config and template files of `folder`, by the names that Hugging Face gives them. NotFound when there is none,
// ResourceExhausted over 512 MiB.
absl::StatusOr<std::string> tokenizer_archive(const std::filesystem::path& folder);

}  // namespace invar::rpc
