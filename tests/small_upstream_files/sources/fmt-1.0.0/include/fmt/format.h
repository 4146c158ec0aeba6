#pragma once

#include <string>

#include <extra/text.h>

namespace fmt {

// Every "{}" is replaced by the next value.
template <typename... Values>
std::string format(std::string pattern, const Values&... values) {
  for (const auto& text : {text_of(values)...}) {
    pattern.replace(pattern.find("{}"), 2, text);
  }
  return pattern;
}

} // namespace fmt
