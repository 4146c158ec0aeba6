#pragma once

#include <string>

namespace fmt {

inline std::string text_of(const std::string& value) {
  return value;
}

inline std::string text_of(int value) {
  return std::to_string(value);
}

} // namespace fmt
