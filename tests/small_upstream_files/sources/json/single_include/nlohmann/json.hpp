#pragma once

#include <string>
#include <utility>
#include <vector>

namespace nlohmann {

inline std::string object(const std::vector<std::pair<std::string, int>>& members) {
  std::string text;
  for (const auto& member : members) {
    text += (text.empty() ? "\"" : ", \"") + member.first + "\": " + std::to_string(member.second);
  }
  return "{" + text + "}";
}

} // namespace nlohmann
