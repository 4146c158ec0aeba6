#pragma once

namespace mlx::core::metal {

// Files of every backend include this one.
struct Header {
  static constexpr int edition = 1;
};

bool is_available();

} // namespace mlx::core::metal
