#include "mlx/array.h"
#include "mlx/backend/metal/metal.h"

namespace mlx::core {

// Compiled by every build without Metal.
constexpr int edition = 1;

int no_metal_edition() {
  return edition;
}

bool metal::is_available() {
  return false;
}

} // namespace mlx::core
