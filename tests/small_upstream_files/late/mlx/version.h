#pragma once

#define MLX_VERSION_MAJOR 0
#define MLX_VERSION_MINOR 2
#define MLX_VERSION_PATCH 0
#define MLX_VERSION_NUMERIC \
  (100000 * MLX_VERSION_MAJOR + 1000 * MLX_VERSION_MINOR + MLX_VERSION_PATCH)

namespace mlx::core {

const char* version();

} // namespace mlx::core
