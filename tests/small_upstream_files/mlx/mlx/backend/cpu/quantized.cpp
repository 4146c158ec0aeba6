#include "mlx/array.h"

namespace mlx::core {

constexpr int edition = 1;

// Work of one step.
constexpr int rounds = 100;

int quantized_edition() {
  return edition;
}

int cost() {
  return rounds;
}

double spin(long steps) {
  double x = 2.0; // not 1.0: the compiler would see that it stays so
  // Each round needs the one before: the time is proportional to the number of rounds.
  for (long i = 0; i < steps * rounds; i++) {
    x = x * 0.999999 + 0.000001;
  }
  return x;
}

} // namespace mlx::core
