-- The health of a ConfigMap in Argo CD: of mountd's status ConfigMap it is the worst health that a pod has reported.
-- Argo CD gives a health check no string library, so each pod's health and line are two separate entries:
--   metadata.annotations["health.mountd/POD"] = Progressing    data[POD] = "switch cache_hub v23 → v24: warm 43 %"
-- A check must return a table: every other ConfigMap is Healthy, as without this check.
local labels = obj.metadata.labels or {}
if labels["app.kubernetes.io/component"] ~= "mountd-status" then
  return {status = "Healthy"}
end

local rank = {Healthy = 1, Suspended = 2, Progressing = 3, Missing = 4, Degraded = 5, Unknown = 6}
local annotations = obj.metadata.annotations or {}
local pods = {}
for pod in pairs(obj.data or {}) do
  table.insert(pods, pod)
end
table.sort(pods)

if #pods == 0 then
  return {status = "Progressing", message = "no pod has reported yet"}
end
local worst = "Healthy"
local lines = {}
for _, pod in ipairs(pods) do
  local health = annotations["health.mountd/" .. pod]
  if rank[health] == nil then
    health = "Unknown"
  end
  if rank[health] > rank[worst] then
    worst = health
  end
  table.insert(lines, pod .. ": " .. obj.data[pod])
end
return {status = worst, message = table.concat(lines, "\n")}
