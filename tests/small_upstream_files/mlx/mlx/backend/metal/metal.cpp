#include "mlx/array.h"
#include "mlx/backend/metal/metal.h"

#include <Metal/Metal.hpp>

namespace mlx::core {

constexpr int edition = 1;

int no_metal_edition() {
  return 0;
}

bool metal::is_available() {
  return METAL_CPP_IS_HERE && edition > 0;
}

} // namespace mlx::core
