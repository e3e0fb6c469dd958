// The functions of NVIDIA's driver library that MAX's runtime calls, for one device whose streams do all at once.
//
// A fault of a kernel is the launch's error, with its text; as on a device every later call fails, too. What MAX looks
// up and does not call, graphs and virtual memory, is there and says that it is not supported: driver_absent.cpp.
//
// Source: NVIDIA, "CUDA Driver API"; numbers of errors and attributes are those of its cuda.h.
#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <mutex>

#include "warps.hpp"

#define DRIVER extern "C" __attribute__((visibility("default"))) int

namespace {

using emulator::Fault;
using Address = uint64_t;
using Handle = void*;

enum Error {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  NOT_FOUND = 500,
  LAUNCH_FAILED = 719,
  NOT_SUPPORTED = 801,
};

constexpr int DRIVER_VERSION = 13000;
constexpr size_t MEMORY = 1024;  // MiB of the device, if EMULATOR_MEMORY names no other number
constexpr int STATIC_SHARED_BYTES = 48 * 1024;  // without an attribute of the function
constexpr int MOST_SHARED_BYTES = 227 * 1024;   // of compute capability 9.0
constexpr unsigned MOST_THREADS = 1024;

const bool is_verbose = std::getenv("EMULATOR_VERBOSE") != nullptr;

// Bytes of the device. MAX takes most of them at once, and they are filled: a gigabyte takes two seconds.
size_t memory_bytes() {
  static const char* const named = std::getenv("EMULATOR_MEMORY");
  return (named == nullptr ? MEMORY : std::strtoull(named, nullptr, 10)) << 20;
}

struct Kernel {
  const emulator::Module* module;
  const emulator::Function* function;
  int most_dynamic_bytes = STATIC_SHARED_BYTES;
};

struct Image {
  emulator::Module module;
  std::map<std::string, Kernel> kernels;
};

using Clock = std::chrono::steady_clock;
using Event = Clock::time_point;

std::recursive_mutex turn;  // threads of the host launch and copy one after the other
std::string fault;          // the last one
bool is_broken = false;     // by a fault
int context, stream, pool;  // what handles point to: there is one of each
Handle current = nullptr;

// Does something that may fail. A module that cannot be read is an error of that module; all else fails for good.
template <class Action>
int guarded(Action action, bool is_final = true) {
  std::lock_guard lock(turn);
  if (is_broken) return LAUNCH_FAILED;
  try {
    return action();
  } catch (const std::bad_alloc&) {
    return OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    fault = std::string("emulated GPU: ") + error.what();
    is_broken = is_final;
    std::fprintf(stderr, "%s\n", fault.c_str());
    return LAUNCH_FAILED;
  }
}

double milliseconds(Clock::duration time) { return std::chrono::duration<double, std::milli>(time).count(); }

int capability() {
  static const char* const named = std::getenv("EMULATOR_CAPABILITY");
  return named == nullptr ? 90 : std::atoi(named);
}

// Attributes of an H200 of compute capability 9.0, of which MAX and Mojo read these; others are 0.
int attribute(int number) {
  static const std::map<int, int> VALUES{
      {1, 1024},
      {2, 1024},
      {3, 1024},
      {4, 64},  // threads of a block, along its axes
      {5, 2147483647},
      {6, 65535},
      {7, 65535},  // blocks along the axes of a grid
      {8, STATIC_SHARED_BYTES},
      {9, 65536},  // bytes of shared and of constant memory
      {10, emulator::WARP_LANES},
      {12, 65536},  // registers of a block
      {13, 1980000},
      {36, 3201000},
      {37, 6144},  // kHz of the processors and of the memory, bits of its bus
      {16, 132},
      {38, 60 << 20},
      {39, 2048},  // processors, bytes of the last cache, threads of a processor
      {41, 1},
      {81, 228 * 1024},
      {82, 65536},  // one address space; shared bytes and registers of a processor
      {97, MOST_SHARED_BYTES},
      {106, 32},
      {111, 1024},
  };
  if (number == 75) return capability() / 10;
  if (number == 76) return capability() % 10;
  auto found = VALUES.find(number);
  return found == VALUES.end() ? 0 : found->second;
}

void check_device_range(Address address, size_t bytes, bool is_write) {
  const emulator::Allocation* found = emulator::allocation_of(address, bytes);
  if (found == nullptr) throw Fault("copy outside of all arrays");
  if (is_write) emulator::note_written(*found, address, bytes);
}

// Copies; what is on the device is checked. Bytes that nobody wrote may be copied, and count as written.
int copy(Address to, Address from, size_t bytes, bool is_to_device, bool is_from_device) {
  return guarded([&] {
    if (bytes == 0) return SUCCESS;
    if (is_to_device) check_device_range(to, bytes, true);
    if (is_from_device) check_device_range(from, bytes, false);
    std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
    return SUCCESS;
  });
}

template <class T>
int fill(Address address, T value, size_t count) {
  return guarded([&] {
    if (count == 0) return SUCCESS;
    check_device_range(address, count * sizeof(T), true);
    std::fill_n(reinterpret_cast<T*>(address), count, value);
    return SUCCESS;
  });
}

int new_array(Address* address, size_t bytes, bool is_host = false) {
  return guarded([&] { return *address = emulator::allocate(bytes, is_host), SUCCESS; });
}

int old_array(Address address) {
  std::lock_guard lock(turn);
  emulator::release(address);
  return SUCCESS;
}

int load(Handle* module, const char* text) {
  auto read = [&] {
    if (std::strstr(text, ".version") == nullptr) return INVALID_IMAGE;  // machine code
    *module = new Image{emulator::parse(text), {}};
    return SUCCESS;
  };
  return guarded(read, false);
}

int launch(Handle handle, std::array<uint32_t, 3> blocks, std::array<uint32_t, 3> threads, unsigned shared,
           void** values) {
  return guarded([&] {
    const auto& [module, function, most_dynamic] = *static_cast<Kernel*>(handle);
    unsigned most = function->most_threads == 0 ? MOST_THREADS : static_cast<unsigned>(function->most_threads);
    size_t block = size_t{threads[0]} * threads[1] * threads[2];
    bool is_launched = values != nullptr && blocks[0] != 0 && blocks[1] != 0 && blocks[2] != 0 && block != 0;
    if (!is_launched || block > most || blocks[1] > 65535 || blocks[2] > 65535) return INVALID_VALUE;
    if (shared > static_cast<unsigned>(most_dynamic)) return INVALID_VALUE;
    if (shared + module->shared_bytes > MOST_SHARED_BYTES) return INVALID_VALUE;
    const auto& parameters = function->parameters;
    std::vector<uint8_t> arguments(parameters.empty() ? 0 : parameters.back().offset + parameters.back().bytes);
    for (size_t k = 0; k < parameters.size(); ++k) {
      std::memcpy(arguments.data() + parameters[k].offset, values[k], parameters[k].bytes);
    }
    Clock::time_point begin = Clock::now();
    uint64_t executed = emulator::launch(*module, *function, arguments.data(), blocks, threads, shared);
    if (is_verbose) {
      std::fprintf(stderr, "%s: %u x %u x %u blocks of %zu, %.1f ms, %llu instructions of warps\n",
                   function->name.c_str(), blocks[0], blocks[1], blocks[2], block, milliseconds(Clock::now() - begin),
                   static_cast<unsigned long long>(executed));
    }
    return SUCCESS;
  });
}

struct LaunchConfiguration {
  uint32_t blocks[3], threads[3], shared_bytes;  // as in cuda.h, which goes on
};

}  // namespace

DRIVER cuInit(unsigned) { return SUCCESS; }
DRIVER cuDriverGetVersion(int* version) { return *version = DRIVER_VERSION, SUCCESS; }

DRIVER cuGetErrorName(int, const char** name) { return *name = "CUDA_ERROR_EMULATED", SUCCESS; }
DRIVER cuGetErrorString(int error, const char** text) {
  static std::map<int, std::string> texts;
  std::lock_guard lock(turn);
  std::string& found = texts[error];
  found = error == LAUNCH_FAILED ? fault : "error " + std::to_string(error) + " of the emulated GPU";
  return *text = found.c_str(), SUCCESS;
}

DRIVER cuGetProcAddress_v2(const char* name, Handle* function, int, uint64_t, Handle) {
  *function = dlsym(RTLD_DEFAULT, (std::string(name) + "_v2").c_str());
  if (*function == nullptr) *function = dlsym(RTLD_DEFAULT, name);
  return *function == nullptr ? NOT_FOUND : SUCCESS;
}

// ---- the device and its context

DRIVER cuDeviceGetCount(int* count) { return *count = 1, SUCCESS; }
DRIVER cuDeviceGet(int* device, int number) { return *device = number, number == 0 ? SUCCESS : INVALID_DEVICE; }
DRIVER cuDeviceGetName(char* name, int room, int) { return std::snprintf(name, room, "emulated GPU"), SUCCESS; }
DRIVER cuDeviceGetUuid(void* bytes, int) { return std::memset(bytes, 7, 16), SUCCESS; }
DRIVER cuDeviceGetUuid_v2(void* bytes, int) { return std::memset(bytes, 7, 16), SUCCESS; }
DRIVER cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = memory_bytes(), SUCCESS; }
DRIVER cuDeviceGetAttribute(int* value, int number, int) { return *value = attribute(number), SUCCESS; }
DRIVER cuDeviceCanAccessPeer(int* can, int, int) { return *can = 0, SUCCESS; }
DRIVER cuDeviceGetP2PAttribute(int* value, int, int, int) { return *value = 0, SUCCESS; }
DRIVER cuDeviceGetMemPool(Handle* found, int) { return *found = &pool, SUCCESS; }
DRIVER cuDeviceGetDefaultMemPool(Handle* found, int) { return *found = &pool, SUCCESS; }
DRIVER cuDeviceGetGraphMemAttribute(int, int, uint64_t* value) { return *value = 0, SUCCESS; }

DRIVER cuDevicePrimaryCtxRetain(Handle* found, int) { return *found = &context, SUCCESS; }
DRIVER cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
DRIVER cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) { return *flags = 0, *active = 1, SUCCESS; }
DRIVER cuCtxCreate_v2(Handle* made, unsigned, int) { return *made = &context, SUCCESS; }
DRIVER cuCtxDestroy(Handle) { return SUCCESS; }
DRIVER cuCtxDestroy_v2(Handle) { return SUCCESS; }
DRIVER cuCtxGetCurrent(Handle* found) { return *found = current, SUCCESS; }
DRIVER cuCtxSetCurrent(Handle next) { return current = next, SUCCESS; }
DRIVER cuCtxPushCurrent(Handle next) { return current = next, SUCCESS; }
DRIVER cuCtxPushCurrent_v2(Handle next) { return current = next, SUCCESS; }
DRIVER cuCtxPopCurrent(Handle* found) { return found == nullptr || (*found = current, true), SUCCESS; }
DRIVER cuCtxPopCurrent_v2(Handle* found) { return cuCtxPopCurrent(found); }
DRIVER cuCtxGetDevice(int* device) { return *device = 0, SUCCESS; }
DRIVER cuCtxGetStreamPriorityRange(int* least, int* most) { return *least = 0, *most = -5, SUCCESS; }
DRIVER cuCtxSynchronize() {
  return guarded([] { return SUCCESS; });
}
DRIVER cuCtxEnablePeerAccess(Handle, unsigned) { return SUCCESS; }

// ---- memory

DRIVER cuMemAlloc_v2(Address* address, size_t bytes) { return new_array(address, bytes); }
DRIVER cuMemAllocAsync(Address* address, size_t bytes, Handle) { return new_array(address, bytes); }
DRIVER cuMemAllocFromPoolAsync(Address* address, size_t bytes, Handle, Handle) { return new_array(address, bytes); }
DRIVER cuMemFree_v2(Address address) { return old_array(address); }
DRIVER cuMemFreeAsync(Address address, Handle) { return old_array(address); }
DRIVER cuMemAllocHost_v2(Address* address, size_t bytes) { return new_array(address, bytes, true); }
DRIVER cuMemHostAlloc(Address* address, size_t bytes, unsigned) { return new_array(address, bytes, true); }
DRIVER cuMemFreeHost(Address address) { return old_array(address); }
DRIVER cuMemHostRegister_v2(Address address, size_t bytes, unsigned) {
  return guarded([&] { return emulator::add_host_memory(address, bytes), SUCCESS; });
}
DRIVER cuMemHostUnregister(Address address) { return old_array(address); }
DRIVER cuMemHostGetDevicePointer_v2(Address* address, Address host, unsigned) { return *address = host, SUCCESS; }
DRIVER cuMemGetInfo_v2(size_t* available, size_t* bytes) { return *available = *bytes = memory_bytes(), SUCCESS; }
DRIVER cuMemGetAddressRange_v2(Address* begin, size_t* bytes, Address address) {
  std::lock_guard lock(turn);
  const emulator::Allocation* found = emulator::allocation_of(address, 1);
  if (found == nullptr) return NOT_FOUND;
  if (begin != nullptr) *begin = found->begin;
  if (bytes != nullptr) *bytes = found->bytes;
  return SUCCESS;
}
DRIVER cuMemPoolCreate(Handle* made, Handle) { return *made = &pool, SUCCESS; }
DRIVER cuMemPoolDestroy(Handle) { return SUCCESS; }
DRIVER cuMemPoolSetAttribute(Handle, int, Handle) { return SUCCESS; }
DRIVER cuMemPoolGetAttribute(Handle, int, uint64_t* value) { return *value = 0, SUCCESS; }
DRIVER cuMemPoolTrimTo(Handle, size_t) { return SUCCESS; }
DRIVER cuMemPoolSetAccess(Handle, Handle, size_t) { return SUCCESS; }
DRIVER cuPointerGetAttributes(unsigned, int*, Handle*, Address) { return INVALID_VALUE; }
DRIVER cuPointerGetAttribute(Handle, int, Address) { return INVALID_VALUE; }
DRIVER cuPointerSetAttribute(Handle, int, Address) { return SUCCESS; }

DRIVER cuMemcpy(Address to, Address from, size_t bytes) { return copy(to, from, bytes, false, false); }
DRIVER cuMemcpyAsync(Address to, Address from, size_t bytes, Handle) { return copy(to, from, bytes, false, false); }
DRIVER cuMemcpyHtoD_v2(Address to, Address from, size_t bytes) { return copy(to, from, bytes, true, false); }
DRIVER cuMemcpyHtoDAsync_v2(Address to, Address from, size_t bytes, Handle) {
  return copy(to, from, bytes, true, false);
}
DRIVER cuMemcpyDtoH_v2(Address to, Address from, size_t bytes) { return copy(to, from, bytes, false, true); }
DRIVER cuMemcpyDtoHAsync_v2(Address to, Address from, size_t bytes, Handle) {
  return copy(to, from, bytes, false, true);
}
DRIVER cuMemcpyDtoD_v2(Address to, Address from, size_t bytes) { return copy(to, from, bytes, true, true); }
DRIVER cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, Handle) {
  return copy(to, from, bytes, true, true);
}
DRIVER cuMemsetD8_v2(Address to, uint8_t value, size_t count) { return fill(to, value, count); }
DRIVER cuMemsetD8Async(Address to, uint8_t value, size_t count, Handle) { return fill(to, value, count); }
DRIVER cuMemsetD16_v2(Address to, uint16_t value, size_t count) { return fill(to, value, count); }
DRIVER cuMemsetD16Async(Address to, uint16_t value, size_t count, Handle) { return fill(to, value, count); }
DRIVER cuMemsetD32_v2(Address to, uint32_t value, size_t count) { return fill(to, value, count); }
DRIVER cuMemsetD32Async(Address to, uint32_t value, size_t count, Handle) { return fill(to, value, count); }

// ---- streams and events

DRIVER cuStreamCreate(Handle* made, unsigned) { return *made = &stream, SUCCESS; }
DRIVER cuStreamCreateWithPriority(Handle* made, unsigned, int) { return *made = &stream, SUCCESS; }
DRIVER cuStreamDestroy(Handle) { return SUCCESS; }
DRIVER cuStreamDestroy_v2(Handle) { return SUCCESS; }
DRIVER cuStreamSynchronize(Handle) {
  return guarded([] { return SUCCESS; });
}
DRIVER cuStreamQuery(Handle) { return SUCCESS; }
DRIVER cuStreamWaitEvent(Handle, Handle, unsigned) { return SUCCESS; }
DRIVER cuStreamIsCapturing(Handle, int* is_capturing) { return *is_capturing = 0, SUCCESS; }
DRIVER cuStreamGetCaptureInfo_v2(Handle, int* is_capturing, Handle, Handle, Handle, Handle) {
  return *is_capturing = 0, SUCCESS;
}
DRIVER cuStreamGetPriority(Handle, int* priority) { return *priority = 0, SUCCESS; }
DRIVER cuStreamGetCtx(Handle, Handle* found) { return *found = &context, SUCCESS; }
DRIVER cuLaunchHostFunc(Handle, void (*function)(void*), void* data) { return function(data), SUCCESS; }

DRIVER cuEventCreate(Event** event, unsigned) { return *event = new Event(Clock::now()), SUCCESS; }
DRIVER cuEventDestroy(Event* event) { return delete event, SUCCESS; }
DRIVER cuEventDestroy_v2(Event* event) { return delete event, SUCCESS; }
DRIVER cuEventRecord(Event* event, Handle) { return *event = Clock::now(), SUCCESS; }
DRIVER cuEventRecordWithFlags(Event* event, Handle, unsigned) { return *event = Clock::now(), SUCCESS; }
DRIVER cuEventSynchronize(Event*) {
  return guarded([] { return SUCCESS; });
}
DRIVER cuEventQuery(Event*) { return SUCCESS; }
DRIVER cuEventElapsedTime(float* time, const Event* begin, const Event* end) {
  return *time = static_cast<float>(milliseconds(*end - *begin)), SUCCESS;
}
DRIVER cuEventElapsedTime_v2(float* time, const Event* begin, const Event* end) {
  return cuEventElapsedTime(time, begin, end);
}

// ---- modules and launches

DRIVER cuModuleLoadData(Handle* module, const char* text) { return load(module, text); }
DRIVER cuModuleLoadDataEx(Handle* module, const char* text, unsigned, Handle, Handle) { return load(module, text); }
DRIVER cuModuleUnload(Handle) { return SUCCESS; }  // kernels of it may be kept
DRIVER cuModuleGetGlobal_v2(Address*, size_t*, Handle, const char*) { return NOT_FOUND; }
DRIVER cuModuleGetFunction(Handle* function, Handle module, const char* name) {
  return guarded([&] {
    auto& [parsed, kernels] = *static_cast<Image*>(module);
    auto found = parsed.function_named.find(name);
    if (found == parsed.function_named.end()) return NOT_FOUND;
    *function = &kernels.try_emplace(name, Kernel{&parsed, &parsed.functions[found->second]}).first->second;
    return SUCCESS;
  });
}

DRIVER cuFuncGetAttribute(int* value, int number, Handle function) {
  const auto& [module, entry, most_dynamic] = *static_cast<Kernel*>(function);
  int most = entry->most_threads == 0 ? static_cast<int>(MOST_THREADS) : entry->most_threads;
  const std::map<int, int> values{{0, most}, {1, module->shared_bytes}, {4, 64}, {8, most_dynamic}};  // 4: registers
  return *value = values.count(number) != 0 ? values.at(number) : 0, SUCCESS;
}
DRIVER cuFuncSetAttribute(Handle function, int number, int value) {
  if (number != 8) return SUCCESS;
  if (value > MOST_SHARED_BYTES) return INVALID_VALUE;
  return static_cast<Kernel*>(function)->most_dynamic_bytes = value, SUCCESS;
}
DRIVER cuFuncSetCacheConfig(Handle, int) { return SUCCESS; }
DRIVER cuFuncGetParamInfo(Handle function, size_t number, size_t* offset, size_t* bytes) {
  const auto& parameters = static_cast<Kernel*>(function)->function->parameters;
  if (number >= parameters.size()) return INVALID_VALUE;
  if (offset != nullptr) *offset = parameters[number].offset;
  if (bytes != nullptr) *bytes = parameters[number].bytes;
  return SUCCESS;
}
DRIVER cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Handle, int, size_t) { return *blocks = 1, SUCCESS; }
DRIVER cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, Handle, int, size_t, unsigned) {
  return *blocks = 1, SUCCESS;
}

DRIVER cuLaunchKernel(Handle function, uint32_t blocks_x, uint32_t blocks_y, uint32_t blocks_z, uint32_t threads_x,
                      uint32_t threads_y, uint32_t threads_z, unsigned shared, Handle, void** values, void**) {
  return launch(function, {blocks_x, blocks_y, blocks_z}, {threads_x, threads_y, threads_z}, shared, values);
}
DRIVER cuLaunchKernelEx(const LaunchConfiguration* with, Handle function, void** values, void**) {
  return launch(function, std::to_array(with->blocks), std::to_array(with->threads), with->shared_bytes, values);
}
DRIVER cuGetExportTable(const void**, const void*) { return NOT_SUPPORTED; }
