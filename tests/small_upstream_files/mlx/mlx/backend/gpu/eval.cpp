#include "mlx/array.h"

namespace mlx::core {

constexpr int edition = 1;

int gpu_edition() {
  return edition;
}

} // namespace mlx::core
