// Kernels by name, other ops that the code calls, and settings. Our own.
#pragma once

#include "stand_in_device.h"

namespace mlx::core {

// The definition that would be compiled is the name of the function that it makes a kernel of.
template <typename... Args>
std::string get_template_definition(const std::string&, const std::string& function, const Args&...) {
  return function;
}
template <typename... Args>
MTL::ComputePipelineState* get_quantized_kernel(
    metal::Device& d, const std::string& name, const std::string& definition, const Args&...) {
  return d.kernel(name, definition);
}
template <typename... Args>
MTL::ComputePipelineState* get_qmm_nax_kernel(
    metal::Device& d, const std::string& name, const std::string& definition, const Args&...) {
  return d.kernel(name, definition);
}
template <typename... Args>
MTL::ComputePipelineState* get_gather_qmm_kernel(metal::Device& d, const std::string& name, const Args&...) {
  return d.kernel(name, "");
}
template <typename... Args>
MTL::ComputePipelineState* get_gather_qmm_nax_kernel(metal::Device& d, const std::string& name, const Args&...) {
  return d.kernel(name, "");
}

// A part of a text. One function joins them: a template of streams would take the compiler longest of all.
struct Part {
  Part(const std::string& s) : text(s) {}
  Part(const char* s) : text(s) {}
  Part(char c) : text(1, c) {}
  Part(bool b) : text(b ? "1" : "0") {}
  template <typename T, typename = std::enable_if_t<std::is_arithmetic_v<T> || std::is_enum_v<T>>>
  Part(T number) : text(std::to_string(number)) {}
  std::string text;
};
inline void join(std::string& text, std::initializer_list<Part> parts) {
  for (const auto& part : parts) {
    text += part.text;
  }
}
template <typename... Args>
void concatenate(std::string& text, const Args&... parts) {
  join(text, {Part(parts)...});
}

// ---- other ops that it calls -------------------------------------------------------------------------------

enum class CopyType { Scalar, Vector, General, GeneralGeneral };
enum class CompilationMode { Default };

template <typename... Args>
void copy_gpu(const array&, array&, const Args&...) {
  ++stand_in::log.copies;
}
inline array contiguous_copy_gpu(const array& a, const Stream&) {
  ++stand_in::log.copies;
  return array(a.shape(), a.dtype());
}
inline void unary_op_gpu(const std::vector<array>&, const array&, const std::string&, const Stream&) {}
inline void unary_op_gpu(const std::vector<array>&, const std::vector<array>&, const std::string&, const Stream&) {}
inline void broadcast(const array&, array&) {}
inline bool is_power_of_2(int n) {
  return n > 0 && (n & (n - 1)) == 0;
}
inline bool is_power_of_two(int n) {
  return is_power_of_2(n);
}

template <typename... Args>
std::tuple<Shape, std::vector<Strides>> collapse_contiguous_dims(
    const Shape& shape, const std::vector<Strides>& strides, const Args&...) {
  return {shape, strides};
}
template <typename... Args>
MTL::Size get_2d_grid_dims(const Shape& shape, const Args&...) {
  size_t n = std::accumulate(shape.begin(), shape.end(), size_t(1), std::multiplies<size_t>());
  return MTL::Size(n, 1, 1);
}

enum ReductionOpType {
  ContiguousAllReduce,
  ContiguousReduce,
  ContiguousStridedReduce,
  GeneralContiguousReduce,
  GeneralStridedReduce,
  GeneralReduce
};
struct ReductionPlan {
  ReductionPlan(ReductionOpType kind, Shape sizes = {}, Strides steps = {})
      : type(kind), shape(std::move(sizes)), strides(std::move(steps)) {}
  ReductionOpType type;
  Shape shape;
  Strides strides;
};
inline void strided_reduce_general_dispatch(
    const array&,
    array&,
    const std::string& op,
    const ReductionPlan& plan,
    const std::vector<int>& /* axes */,
    CommandEncoder&,
    metal::Device&,
    const Stream&) {
  int parts = std::accumulate(plan.shape.begin(), plan.shape.end(), 1, std::multiplies<int>());
  auto& launches = stand_in::log.launches;
  if (!launches.empty()) {
    launches.back().split = parts;
  }
  launches.push_back({"reduce_" + op, "", {0, 0, 0}, {0, 0, 0}, 0, parts, true});
}

// ---- settings ----------------------------------------------------------------------------------------------

namespace env {
#ifndef STAND_IN_OWN_GET_VAR
inline int get_var(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  return value ? std::atoi(value) : otherwise;
}
inline std::string get_var(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value ? value : otherwise;
}
#endif
#ifndef STAND_IN_ENV
inline bool enable_tf32() {
  return get_var("MLX_ENABLE_TF32", 1);
}
inline std::string metal_gpu_arch() {
  return stand_in::arch;
}
#endif
} // namespace env

} // namespace mlx::core
