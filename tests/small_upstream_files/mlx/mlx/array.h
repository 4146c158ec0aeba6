#pragma once

#include <string>
#include <vector>

namespace mlx::core {

// Most files include this one: a change here compiles them all again.
struct ArrayHeader {
  static constexpr int edition = 1;
  std::vector<int> shape;
};

int cost();
double spin(long steps);
std::string marker();
std::string describe();

// What each file was when it was compiled.
int array_edition();
int io_edition();
int ops_edition();
int utils_edition();
int load_edition();
int binary_edition();
int quantized_edition();
int no_metal_edition();
int gpu_edition();

std::string joined(const std::vector<std::string>& names, const std::vector<int>& editions);

} // namespace mlx::core
