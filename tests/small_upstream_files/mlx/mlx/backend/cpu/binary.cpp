#include "mlx/array.h"

namespace mlx::core {

constexpr int edition = 1;

int binary_edition() {
  return edition;
}

} // namespace mlx::core
