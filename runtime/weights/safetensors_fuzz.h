// What the libFuzzer target and its deterministic twin (safetensors_mutation_test.cc) do with an input.
#pragma once

#include <string_view>

namespace invar {

// Two bytes of data length, then a header. Aborts when something accepted does not tile its data. True: accepted.
bool fuzz_safetensors_header(std::string_view text);

}  // namespace invar
