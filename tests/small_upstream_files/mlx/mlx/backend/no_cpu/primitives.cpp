#include "mlx/array.h"

namespace mlx::core {

int binary_edition() {
  return 0;
}

int quantized_edition() {
  return 0;
}

int cost() {
  return 0;
}

double spin(long) {
  return 0;
}

} // namespace mlx::core
