// What a template may cost. A template is a stranger's program: without these it could fill the memory or never end. All are
// counts, not times, so that the same template with the same variables ends the same way on every machine.
#pragma once

#include <cstddef>
#include <cstdint>

namespace invar::jinja {

inline constexpr size_t kMaxSourceBytes = size_t{1} << 20;   // of a template; real ones have up to 30 KB
inline constexpr int kMaxTreeDepth = 150;                    // nesting of expressions, and of statements
inline constexpr int kMaxArguments = 200;                    // written out in one call, or parameters of a macro
inline constexpr int kMaxRunDepth = 500;                     // expressions, statements and macros that wait for one another
inline constexpr int kMaxValueDepth = 100;                   // lists in lists
inline constexpr size_t kMaxTupleKey = 1024;                 // bytes of a tuple used as a key of a dict
inline constexpr int64_t kMaxSteps = 20'000'000;             // about two seconds
inline constexpr size_t kMaxBytes = size_t{512} << 20;       // text and lists made in one run, freed ones included
inline constexpr size_t kMaxOutputBytes = size_t{64} << 20;  // of the prompt
inline constexpr int64_t kMaxRange = 100'000;                // range(), as in Jinja's sandbox

}  // namespace invar::jinja
