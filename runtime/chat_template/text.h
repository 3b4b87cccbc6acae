// Text the way Python's str sees it: counted in characters, with Unicode's ideas of white space and case. All text is valid
// UTF-8. Searching takes time linear in the text whatever it looks for, because both may be hostile.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace invar::jinja {

bool is_ascii(std::string_view text);
size_t character_count(std::string_view text);
std::u32string decode(std::string_view text);
std::string encode(std::u32string_view characters);

bool is_space(char32_t c);                     // str.isspace
size_t leading_space(std::string_view text);   // bytes
size_t trailing_space(std::string_view text);  // bytes
// str.strip and its like: white space, or any of `characters`.
std::string_view strip(std::string_view text, bool left, bool right);
std::string_view strip(std::string_view text, std::string_view characters, bool left, bool right);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string title(std::string_view text);
std::string capitalize(std::string_view text);
std::string swapcase(std::string_view text);

// Byte offsets; npos: not there. `find_last` gives the last place.
size_t find_first(std::string_view text, std::string_view part, size_t from = 0);
size_t find_last(std::string_view text, std::string_view part);
// Places of `part` that do not overlap, from the left.
size_t count_parts(std::string_view text, std::string_view part);

// str.split(separator, limit) and rsplit; limit < 0: all. Without separator: runs of white space.
std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t limit);
std::vector<std::string_view> split_right(std::string_view text, std::string_view separator, int64_t limit);
std::vector<std::string_view> split_space(std::string_view text, int64_t limit);
std::vector<std::string_view> split_space_right(std::string_view text, int64_t limit);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

// isalnum, isalpha, isascii, isdecimal, isdigit, islower, isnumeric, isprintable, isspace, istitle, isupper, isidentifier.
// Fails for no other names: returns false in `known`.
bool is_class(std::string_view text, std::string_view method, bool& known);
bool is_printable(char32_t c);

}  // namespace invar::jinja
