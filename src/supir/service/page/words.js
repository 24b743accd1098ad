// What is said of a job.

const arrivals = new Map();   // of each job at work, when its first step came

export const isActive = job => job.state === 'queued' || job.state === 'running';
export const seedOf = job => job.options?.seed;
export const stem = name => name.replace(/\.[^.]*$/, '') || name;
export const resultName = job => `${stem(job.name)}.restored${job.format}`;

export function progress(job, opening) {
  if (job.state === 'queued') {
    if (opening) return 'the model is being opened';
    if (job.position) return `${job.position} before it in the queue`;
    return job.waits_for ? `waiting for ${job.waits_for}` : 'next in the queue';
  }
  if (job.state === 'running') {
    if (job.until === 'preview' || !job.preview) return 'making the clean preview';
    return `step ${job.step} of ${job.num_steps}${remaining(job)}`;
  }
  if (job.state === 'failed') return job.error;
  return {cancelled: 'cancelled', expired: 'no longer kept'}[job.state] ?? '';
}

export function title(job) {
  if (job.until === 'preview') return 'Clean preview';
  return `Seed ${seedOf(job) ?? '…'}`;
}

function remaining(job) {
  if (!job.step) return '';
  const first = arrivals.get(job.id) ?? {step: job.step, time: performance.now()};
  arrivals.set(job.id, first);
  if (job.step < first.step + 2) return '';
  const seconds = (performance.now() - first.time) / 1000 / (job.step - first.step) * (job.num_steps - job.step);
  if (seconds < 2) return '';
  return seconds < 90 ? `, about ${Math.round(seconds)} s left` : `, about ${Math.round(seconds / 60)} min left`;
}
