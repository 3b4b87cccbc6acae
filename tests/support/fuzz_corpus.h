// The seeds of a libFuzzer program that brings its own.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace invar {

// LLVMFuzzerInitialize: the corpus folder that the program was given gets the samples if it is empty, so that none has to be
// kept.
inline void fill_empty_corpus(int argc, char** argv, const std::vector<std::string>& samples) {
  for (int i = 1; i < argc; ++i) {
    const std::filesystem::path folder = argv[i];
    if (argv[i][0] == '-' || !std::filesystem::is_directory(folder)) continue;
    if (!std::filesystem::is_empty(folder)) return;
    for (size_t s = 0; s < samples.size(); ++s)
      std::ofstream(folder / ("sample" + std::to_string(s)), std::ios::binary) << samples[s];
    return;
  }
}

}  // namespace invar
