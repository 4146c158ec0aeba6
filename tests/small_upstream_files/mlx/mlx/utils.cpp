#include <fmt/format.h>

#include "mlx/array.h"

namespace mlx::core {

constexpr int edition = 1;

int utils_edition() {
  return edition;
}

std::string joined(const std::vector<std::string>& names, const std::vector<int>& editions) {
  std::string text;
  for (size_t i = 0; i < names.size(); i++) {
    text += fmt::format(i ? " {}={}" : "{}={}", names[i], editions[i]);
  }
  return text;
}

} // namespace mlx::core
