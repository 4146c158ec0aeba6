#pragma once

#include <string>

namespace fmt {

inline std::string text_of(const std::string& value) {
  return value;
}

inline std::string text_of(int value) {
  return std::to_string(value);
}

// Every "{}" is replaced by the next value.
template <typename... Values>
std::string format(std::string pattern, const Values&... values) {
  for (const auto& text : {text_of(values)...}) {
    pattern.replace(pattern.find("{}"), 2, text);
  }
  return pattern;
}

} // namespace fmt
