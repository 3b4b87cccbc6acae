// What the libFuzzer target and its deterministic twin (config_mutation_test.cc) do with an input.
#pragma once

#include <string_view>

namespace invar {

// config.json, then after a zero byte generation_config.json. Aborts when something accepted is not usable. True: accepted.
bool fuzz_config(std::string_view text);

}  // namespace invar
