"""What published NVML programs see on this node, as one JSON object.

`LD_LIBRARY_PATH` says which NVML. Bytes; `None` is what the library does not say. Reads an empty JSON object, so that it is run
as all scripts here.
"""

import calendar
import json
import os
import subprocess
import sys

import nvitop
import pynvml


def known(value):
    return None if value is None or value == nvitop.NA else int(value)


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def pynvml_processes(handle):
    lists = (
        pynvml.nvmlDeviceGetComputeRunningProcesses(handle),
        pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle),
        pynvml.nvmlDeviceGetMPSComputeRunningProcesses(handle),
    )
    none = 0xFFFFFFFF
    return [
        {
            "pid": one.pid,
            "used": one.usedGpuMemory,
            "gi": None if one.gpuInstanceId == none else one.gpuInstanceId,
            "ci": None if one.computeInstanceId == none else one.computeInstanceId,
        }
        for some in lists
        for one in some
    ]


def pynvml_memory(handle):
    split = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    merged = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return {"total": split.total, "used": split.used, "reserved": split.reserved, "used_v1": merged.used}


def pynvml_instances(handle):
    try:
        slots = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except pynvml.NVMLError_NotSupported:
        return
    for slot in range(slots):
        try:
            instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot)
        except pynvml.NVMLError_NotFound:
            continue
        yield {
            "slot": slot,
            "uuid": text(pynvml.nvmlDeviceGetUUID(instance)),
            "gi": pynvml.nvmlDeviceGetGpuInstanceId(instance),
            "ci": pynvml.nvmlDeviceGetComputeInstanceId(instance),
            "memory": pynvml_memory(instance),
            "processes": pynvml_processes(instance),
        }


def pynvml_licence(vgpu):
    """State as the agent calls it, and the end in seconds since 1970."""
    try:
        told = pynvml.nvmlVgpuInstanceGetLicenseInfo(vgpu)
    except pynvml.NVMLError_DriverNotLoaded:
        return "unknown", None
    unlicensed = (
        pynvml.NVML_GRID_LICENSE_STATE_UNLICENSED_UNRESTRICTED,
        pynvml.NVML_GRID_LICENSE_STATE_UNLICENSED_RESTRICTED,
        pynvml.NVML_GRID_LICENSE_STATE_UNLICENSED,
    )
    state = "licensed" if told.isLicensed else "unlicensed" if told.currentState in unlicensed else "unknown"
    end = told.licenseExpiry
    # NVML_GRID_LICENSE_EXPIRY_VALID, which in pynvml is a tuple by mistake.
    if end.status != 2:
        return state, None
    return state, calendar.timegm((end.year, end.month, end.day, end.hour, end.min, end.sec))


def pynvml_vgpus(handle):
    try:
        vgpus = pynvml.nvmlDeviceGetActiveVgpus(handle)
    except pynvml.NVMLError_NotSupported:
        return
    for vgpu in vgpus:
        kind = pynvml.nvmlVgpuInstanceGetType(vgpu)
        licence, expires = pynvml_licence(vgpu)
        yield {
            "uuid": text(pynvml.nvmlVgpuInstanceGetUUID(vgpu)),
            "type": text(pynvml.nvmlVgpuTypeGetName(kind)),
            "vm": text(pynvml.nvmlVgpuInstanceGetVmID(vgpu)[0]),
            "licence": licence,
            "licence_expires_at_s": expires,
            "guest_driver": text(pynvml.nvmlVgpuInstanceGetVmDriverVersion(vgpu)),
            "total": pynvml.nvmlVgpuTypeGetFramebufferSize(kind),
            "used": pynvml.nvmlVgpuInstanceGetFbUsage(vgpu),
        }


def pynvml_gpus():
    pynvml.nvmlInit()
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        except pynvml.NVMLError_GpuIsLost:
            continue
        try:
            mig = pynvml.nvmlDeviceGetMigMode(handle)[0] == 1
        except pynvml.NVMLError_NotSupported:
            mig = False
        yield {
            "uuid": text(pynvml.nvmlDeviceGetUUID(handle)),
            "name": text(pynvml.nvmlDeviceGetName(handle)),
            "pci_bus_id": text(pynvml.nvmlDeviceGetPciInfo(handle).busId),
            "memory": pynvml_memory(handle),
            "processes": pynvml_processes(handle),
            "instances": list(pynvml_instances(handle)) if mig else [],
            "vgpus": list(pynvml_vgpus(handle)),
        }


def nvitop_processes(device):
    return [
        {
            "pid": pid,
            "used": known(one.gpu_memory()),
            "gi": known(one.gpu_instance_id()),
            "ci": known(one.compute_instance_id()),
        }
        for pid, one in device.processes().items()
    ]


def nvitop_device(device):
    return {
        "uuid": device.uuid(),
        "memory": {"total": known(device.memory_total()), "used": known(device.memory_used())},
        "processes": nvitop_processes(device),
    }


def nvitop_gpus():
    for device in nvitop.Device.all():
        # A lost GPU.
        if device.uuid() == nvitop.NA:
            continue
        instances = [
            nvitop_device(one) | {"gi": one.gpu_instance_id(), "ci": one.compute_instance_id()}
            for one in device.mig_devices()
        ]
        yield nvitop_device(device) | {"name": device.name(), "pci_bus_id": device.bus_id(), "instances": instances}


def program(name, *arguments):
    path = os.path.join(os.path.dirname(sys.executable), name)
    return subprocess.run([path, *arguments], check=True, capture_output=True, text=True, timeout=60).stdout


json.load(sys.stdin)
seen = {
    "driver": text(pynvml.nvmlInit() or pynvml.nvmlSystemGetDriverVersion()),
    "pynvml": list(pynvml_gpus()),
    "nvitop": list(nvitop_gpus()),
    "gpustat": json.loads(program("gpustat", "--json")),
    "nvitop_screen": program("nvitop", "--once"),
}
json.dump(seen, sys.stdout)
