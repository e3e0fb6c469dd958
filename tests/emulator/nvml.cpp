// The functions of NVIDIA's management library that MAX calls to find a device: names, versions, nothing in use.
//
// Source: NVIDIA, "NVML API Reference".
#include <cstdio>
#include <cstring>

#define MANAGEMENT extern "C" __attribute__((visibility("default"))) int

namespace {

using Device = void*;

constexpr int SUCCESS = 0, DRIVER_VERSION = 13000, MHZ = 1980;
constexpr unsigned long long MEMORY = 1ull << 30;

int only_one;  // what handles point to

int find(Device* device) { return *device = &only_one, SUCCESS; }

}  // namespace

MANAGEMENT nvmlInit() { return SUCCESS; }
MANAGEMENT nvmlInit_v2() { return SUCCESS; }
MANAGEMENT nvmlShutdown() { return SUCCESS; }
extern "C" __attribute__((visibility("default"))) const char* nvmlErrorString(int) {
  return "error of the emulated GPU";
}
MANAGEMENT nvmlSystemGetDriverVersion(char* text, unsigned room) { return std::snprintf(text, room, "580.0"), SUCCESS; }
MANAGEMENT nvmlSystemGetCudaDriverVersion(int* version) { return *version = DRIVER_VERSION, SUCCESS; }
MANAGEMENT nvmlSystemGetCudaDriverVersion_v2(int* version) { return *version = DRIVER_VERSION, SUCCESS; }
MANAGEMENT nvmlDeviceGetCount_v2(unsigned* count) { return *count = 1, SUCCESS; }
MANAGEMENT nvmlDeviceGetHandleByIndex(unsigned, Device* device) { return find(device); }
MANAGEMENT nvmlDeviceGetHandleByIndex_v2(unsigned, Device* device) { return find(device); }
MANAGEMENT nvmlDeviceGetHandleByUUID(const char*, Device* device) { return find(device); }
MANAGEMENT nvmlDeviceGetHandleByPciBusId_v2(const char*, Device* device) { return find(device); }
MANAGEMENT nvmlDeviceGetName(Device, char* text, unsigned room) {
  return std::snprintf(text, room, "emulated GPU"), SUCCESS;
}
MANAGEMENT nvmlDeviceGetUUID(Device, char* text, unsigned room) { return std::snprintf(text, room, "GPU-0"), SUCCESS; }
MANAGEMENT nvmlDeviceGetClockInfo(Device, int, unsigned* clock) { return *clock = MHZ, SUCCESS; }
MANAGEMENT nvmlDeviceGetMaxClockInfo(Device, int, unsigned* clock) { return *clock = MHZ, SUCCESS; }
MANAGEMENT nvmlDeviceGetComputeRunningProcesses_v3(Device, unsigned* count, void*) { return *count = 0, SUCCESS; }
MANAGEMENT nvmlDeviceGetCudaComputeCapability(Device, int* major, int* minor) {
  return *major = 9, *minor = 0, SUCCESS;
}
MANAGEMENT nvmlDeviceGetCurrentClocksThrottleReasons(Device, unsigned long long* reasons) {
  return *reasons = 0, SUCCESS;
}
MANAGEMENT nvmlDeviceGetMemoryInfo(Device, unsigned long long* sizes) {  // all of it, free, used
  return sizes[0] = sizes[1] = MEMORY, sizes[2] = 0, SUCCESS;
}
MANAGEMENT nvmlDeviceGetMigMode(Device, unsigned* current, unsigned* pending) {
  return *current = *pending = 0, SUCCESS;
}
MANAGEMENT nvmlDeviceGetPciInfo_v3(Device, void* information) { return std::memset(information, 0, 68), SUCCESS; }
MANAGEMENT nvmlDeviceGetTotalEccErrors(Device, int, int, unsigned long long* count) { return *count = 0, SUCCESS; }
