// A device that is an architecture string, and an encoder that writes down what it is told. Our own.
#pragma once

#include "stand_in_arrays.h"

namespace mlx::core {

namespace metal {

using MTLFCList = std::vector<std::tuple<const void*, MTL::DataType, NS::UInteger>>;

// Copies of it write to the one log, and it is its own pointee: it was held in three ways.
class CommandEncoder {
 public:
  CommandEncoder* operator->() {
    return this;
  }
  void set_compute_pipeline_state(const MTL::ComputePipelineState* kernel) {
    kernel_ = kernel;
  }
  void setComputePipelineState(const MTL::ComputePipelineState* kernel) {
    kernel_ = kernel;
  }
  template <typename... Args>
  void set_input_array(const array&, const Args&...) {
    ++buffers_;
  }
  template <typename... Args>
  void set_output_array(const array&, const Args&...) {
    ++buffers_;
  }
  template <typename... Args>
  void set_bytes(const Args&...) {
    ++buffers_;
  }
  template <typename... Args>
  void setBytes(const Args&...) {
    ++buffers_;
  }
  template <typename... Args>
  void set_vector_bytes(const Args&...) {
    ++buffers_;
  }
  template <typename... Args>
  void set_buffer(const Args&...) {
    ++buffers_;
  }
  template <typename... Args>
  void set_threadgroup_memory_length(const Args&...) {}
  template <typename... Args>
  void register_output_array(const Args&...) {}
  template <typename... Args>
  void add_temporary(const Args&...) {}
  template <typename... Args>
  void add_temporaries(const Args&...) {}
  template <typename... Args>
  void barrier(const Args&...) {}

  void dispatch_threadgroups(MTL::Size grid, MTL::Size group) {
    if (kernel_ == nullptr) {
      throw std::runtime_error("a launch without a kernel");
    }
    stand_in::log.launches.push_back(
        {kernel_->name, kernel_->function, {grid.width, grid.height, grid.depth},
         {group.width, group.height, group.depth}, buffers_, 1, false});
    buffers_ = 0;
  }
  void dispatch_threads(MTL::Size grid, MTL::Size group) {
    auto groups = [](size_t n, size_t by) { return (n + std::max<size_t>(by, 1) - 1) / std::max<size_t>(by, 1); };
    dispatch_threadgroups(
        MTL::Size(groups(grid.width, group.width), groups(grid.height, group.height),
                  groups(grid.depth, group.depth)),
        group);
  }
  void dispatchThreadgroups(MTL::Size grid, MTL::Size group) {
    dispatch_threadgroups(grid, group);
  }
  void dispatchThreads(MTL::Size grid, MTL::Size group) {
    dispatch_threads(grid, group);
  }

 private:
  const MTL::ComputePipelineState* kernel_ = nullptr;
  int buffers_ = 0;
};

class Device {
 public:
  CommandEncoder& get_command_encoder(int = 0) {
    return encoder_;
  }
  MTL::CommandBuffer* get_command_buffer(int = 0) {
    return &buffer_;
  }
  const std::string& get_architecture() const {
    return stand_in::arch;
  }
  int get_architecture_gen() const {
    const auto& name = stand_in::arch;
    return name.size() < 3 ? 0 : 10 * (name[name.size() - 3] - '0') + (name[name.size() - 2] - '0');
  }
  template <typename... Args>
  MTL::ComputePipelineState* get_kernel(const std::string& name, const Args&...) {
    return kernel(name, "");
  }
  template <typename... Args>
  void add_temporary(const Args&...) {}
  template <typename... Args>
  void add_temporaries(const Args&...) {}

  MTL::ComputePipelineState* kernel(const std::string& name, const std::string& function) {
    auto& known = kernels_[name];
    if (!known) {
      known = std::make_unique<MTL::ComputePipelineState>(MTL::ComputePipelineState{name, function});
    }
    return known.get();
  }

 private:
  CommandEncoder encoder_;
  MTL::CommandBuffer buffer_;
  std::map<std::string, std::unique_ptr<MTL::ComputePipelineState>> kernels_;
};

inline Device& device(const mlx::core::Device& = {}) {
  static Device only;
  return only;
}
inline CommandEncoder& get_command_encoder(const Stream&) {
  return device().get_command_encoder();
}
inline bool is_nax_available() {
  return stand_in::nax;
}

} // namespace metal

using metal::CommandEncoder;

inline void set_array_buffer(CommandEncoder& encoder, const array& a, int index) {
  encoder.set_input_array(a, index);
}
template <typename... Args>
void set_vector_bytes(CommandEncoder& encoder, const Args&...) {
  encoder.set_vector_bytes(0);
}

} // namespace mlx::core
