import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { cublasLtPaths, gemmChoice } from './cublaslt';
import { cudaDevices } from './device';

describe('where cuBLASLt is looked for', () => {
  let root: string;
  const put = (file: string) => {
    mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
    writeFileSync(path.join(root, file), '');
  };
  beforeEach(() => {
    root = mkdtempSync(path.join(os.tmpdir(), 'ds-cublaslt-'));
  });
  afterEach(() => rmSync(root, { recursive: true }));

  it('takes the file or the folder that was named, and nothing else', () => {
    put('a/libcublasLt.so.12');
    const [file, folder] = [path.join(root, 'a/libcublasLt.so.12'), path.join(root, 'a')];
    expect(cublasLtPaths({ DS_CUBLASLT_PATH: file, CUDA_HOME: root })).toEqual([file]);
    expect(cublasLtPaths({ DS_CUBLASLT_PATH: folder, CUDA_HOME: root })).toEqual([file]);
    expect(cublasLtPaths({ DS_CUBLASLT_PATH: `${root}/none` })).toEqual([`${root}/none`]);
  });

  it('asks the system, then toolkits, conda and the folders of pip', () => {
    put('toolkit/lib64/libcublasLt.so.13');
    put('toolkit/lib64/libcublasLt.so.12');
    put('venv/lib/python3.12/site-packages/nvidia/cublas/lib/libcublasLt.so.12');
    put('home/.local/lib/python3.11/site-packages/nvidia/cu13/lib/libcublasLt.so.13');
    put('conda/lib/libcublasLt.so.12');
    const env = {
      CUDA_HOME: `${root}/toolkit`,
      VIRTUAL_ENV: `${root}/venv`,
      CONDA_PREFIX: `${root}/conda`,
      HOME: `${root}/home`,
    };
    const own = cublasLtPaths(env).filter((file) => !file.startsWith('/usr/'));
    expect(own).toEqual([
      'libcublasLt.so.13',
      'libcublasLt.so.12',
      `${root}/toolkit/lib64/libcublasLt.so.13`,
      `${root}/toolkit/targets/x86_64-linux/lib/libcublasLt.so.13`,
      `${root}/conda/lib/libcublasLt.so.12`,
      `${root}/venv/lib/python3.12/site-packages/nvidia/cublas/lib/libcublasLt.so.12`,
      `${root}/home/.local/lib/python3.11/site-packages/nvidia/cu13/lib/libcublasLt.so.13`,
    ]);
  });

  it('knows three choices', () => {
    expect(['auto', 'cublaslt', 'internal'].map(gemmChoice)).toEqual([0, 1, 2]);
    expect(() => gemmChoice('cublas')).toThrow(/DS_CUDA_GEMM.*auto, cublaslt, internal.*cublas/s);
  });
});

const { devices, emulated } = cudaDevices();
const describeCuda = devices.length > 0 && emulated ? describe : describe.skip;

describeCuda('DS_CUDA_GEMM', () => {
  // In processes of their own: it is read once.
  function product(env: Record<string, string>): { status: number | null; output: string } {
    const script = `
      const { Tensor, linear, cudaGemmLibrary } = require(${JSON.stringify(path.resolve(__dirname, '..'))});
      const ones = (shape) => Tensor.from(new Float32Array(shape[0] * shape[1]).fill(1), shape, { device: 'cuda:0' });
      const { y } = linear(ones([16, 8]), ones([4, 8]));
      y.numbers().then((n) => console.log(n[0], n.length, cudaGemmLibrary()), (e) => { console.log(e.message); process.exitCode = 1; });`;
    const { status, stdout, stderr } = spawnSync(process.execPath, ['-e', script], {
      encoding: 'utf8',
      env: { ...process.env, ...env },
    });
    return { status, output: stdout + stderr };
  }

  it('auto makes products without cuBLASLt', () => {
    expect(product({ DS_CUDA_GEMM: 'auto' })).toEqual({
      status: 0,
      output: '8 64 our own kernels: cuBLASLt is not found (nowhere to look)\n',
    });
  });

  it('internal does not look for it', () => {
    expect(product({ DS_CUDA_GEMM: 'internal' })).toEqual({ status: 0, output: '8 64 our own kernels, as asked\n' });
  });

  it('cublaslt is an error where it is not found', () => {
    const { status, output } = product({ DS_CUDA_GEMM: 'cublaslt', DS_CUBLASLT_PATH: '/nowhere/libcublasLt.so.13' });
    expect(output).toMatch(/DS_CUDA_GEMM=cublaslt.*\/nowhere\/libcublasLt\.so\.13/s);
    expect(status).toBe(1);
  });
});
